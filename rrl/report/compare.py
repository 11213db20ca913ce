"""`rrl compare`: two runs, or two groups of seeds: what they differ in, and by how much."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.machine import terminal
from rrl.machine.console import duration, wrapped
from rrl.registry import UserError
from rrl.report import notices, numbers
from rrl.report.groups import ABSENT, Group, Report, collect, seed_of, setting
from rrl.report.numbers import ENOUGH, SPACES, Pair, Scores, finite, short
from rrl.store import results
from rrl.store.results import ID, OTHERWISE, Result

MOMENTS = 4  # equal parts of what both trained for, at whose ends the curves are compared
TOLD = frozenset({"env", "encoder", "agent", "iterations"})
"""Tags that say what settings and labels say already."""


@dataclass(frozen=True)
class Line:
    """One number of both sides."""

    what: str
    metric: str
    step: int | None
    """Environment steps of training before; None: at the end."""
    a: Scores
    b: Scores
    pair: Pair | None
    """None where the two can't be subtracted."""


def compare(
    first: str,
    second: str,
    say: Callable[[str], None],
    *,
    as_json: bool = False,
    width: int | None = None,
    root: Path | None = None,
) -> None:
    """Say how two runs (or groups of seeds: a sweep, or ids with commas between) differ. `width`: columns of the
    screen; None: of the terminal, if there is one, else without limit."""
    a, b = side(first, root), side(second, root)
    if {run.run_id for run in a.runs} & {run.run_id for run in b.runs}:
        raise UserError(f"{first} and {second} hold the same run; name two different ones")
    warnings, lines = list(doubts(a, b)), list(figures(a, b))
    differences = {"settings": settings(a, b), "facts": ran_on(a, b)}
    if as_json:
        told = {"a": _side(a), "b": _side(b), "warnings": warnings, **differences}
        say(json.dumps({**told, "numbers": [_line(line) for line in lines]}, indent=2, allow_nan=False))
        return
    width = width or terminal.width()
    for name, group in (("A", a), ("B", b)):
        say(wrapped(f"{name}  {heading(group)}", width))
    for text in warnings:
        say(wrapped(f"WARNING: {text}", width))
    for title, key in (("settings that differ", "settings"), ("what they ran on, where it differs", "facts")):
        section(title, [(name, *values) for name, values in differences[key].items()], say, width)
    section("numbers", [_shown(line) for line in lines], say, width, "A - B (95 %)")
    how = dict.fromkeys(line.pair.how for line in lines if line.pair)
    if how:
        say(wrapped(f"  intervals of A - B: {'; '.join(how)}", width))
    section("time", list(_time(a, b)), say, width)


def side(name: str, root: Path | None = None) -> Group:
    """The group that a name means: one method on one task. UserError if it means several."""
    names = [name] if Path(name).exists() else [part.strip() for part in name.split(",")]
    groups = collect(results.find(names, root)).groups
    if not groups:
        raise UserError(f"{name} is a sweep without runs")
    if len(groups) > 1:
        held = "; ".join(f"{group.label} ({','.join(run.run_id[:ID] for run in group.runs)})" for group in groups[:8])
        raise UserError(
            f"{name} holds {len(groups)} methods: {held}. Name the runs of one, with commas between their ids; "
            f"`rrl report {name}` compares all of them"
        )
    return groups[0]


def doubts(a: Group, b: Group) -> Iterator[str]:
    """Why their numbers may not be comparable, in words."""
    if a.task != b.task:
        yield f"different tasks ({a.task} and {b.task}): their numbers say nothing about each other"
    for fact in notices.facts(Report((a, b))):
        if fact.serious and fact.scope(a) == fact.scope(b):
            here, there = (_joined(fact.value(run) for run in group.runs) for group in (a, b))
            if here and there and here != there:
                yield f"different {fact.name}: A {here}, B {there}"
    for name, group in (("A", a), ("B", b)):
        if "UNTRAINED" in group.encoder:
            yield f"the encoder of {name} is UNTRAINED (random weights)"
        for tag in OTHERWISE:
            yield from dict.fromkeys(f"{name}: {run.tags[tag]}" for run in group.runs if tag in run.tags)
        states = [f"seed {seed_of(run)} {run.status} at {run.steps:,} steps" for run in group.runs]
        if any(run.status != "finished" for run in group.runs):
            yield f"{name} is not finished: {', '.join(states)}"
        if not group.measured:
            yield f"{name} has measured nothing yet"
    fewest = min(len(a.runs), len(b.runs))
    if fewest < ENOUGH:
        count = "one seed" if fewest == 1 else f"{fewest} seeds"
        yield (
            f"{count} of a side decide{'s' * (fewest == 1)} nothing: another seed may turn the difference round, and "
            f"intervals over episodes don't tell; take {ENOUGH} or more of each"
        )


def settings(a: Group, b: Group) -> dict[str, tuple[str, str]]:
    """Name -> (A's value, B's value) of the settings that differ; of components that differ, those that both have."""
    names = dict.fromkeys(name for group in (a, b) for run in group.runs for name in run.params)
    return differing(*({name: _value(group, name) for name in names} for group in (a, b)))


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Flat name -> (A's value, B's value) where these differ; of components that differ, what both have."""
    both = {name: (a.get(name, ABSENT), b.get(name, ABSENT)) for name in {**a, **b}}
    differences = {name: values for name, values in both.items() if values[0] != values[1]}
    others = tuple(f"{name}." for name, values in differences.items() if "()" not in values)  # () has nothing inside
    return {n: values for n, values in differences.items() if not (ABSENT in values and n.startswith(others))}


def _value(group: Group, name: str) -> str:
    if setting(group, name) is None:
        return ABSENT
    return _joined(run.params.get(name, ABSENT) for run in group.runs)


def ran_on(a: Group, b: Group) -> dict[str, tuple[str, str]]:
    """Tag -> (A's value, B's value): checksums, demonstrations, versions, commits, devices that differ."""

    def values(name: str) -> tuple[str, str]:
        return _tags(a, name), _tags(b, name)

    names = dict.fromkeys(name for group in (a, b) for run in group.runs for name in run.tags if name not in TOLD)
    said = {(name.rpartition(".")[2], *values) for name, values in settings(a, b).items()}
    found = {name: values(name) for name in names}
    return {n: (x, y) for n, (x, y) in found.items() if x != y and (n.rpartition(".")[2], x, y) not in said}


def _tags(group: Group, name: str) -> str:
    return _joined(notices.commit(r) if name == "git_commit" else r.tags.get(name, ABSENT) for r in group.runs)


def figures(a: Group, b: Group) -> Iterator[Line]:
    """Both curves at shared moments, their best and last, and the final evaluations."""
    words = {"train": "training", "eval": "evaluation"}
    for space in SPACES:
        metrics = a.score.metric(space), b.score.metric(space)
        end = min(numbers.reach(a, metrics[0]), numbers.reach(b, metrics[1]))
        before: tuple[Scores, Scores] | None = None
        for step in sorted({end * part // MOMENTS for part in range(MOMENTS + 1)}):
            here = _at(a, metrics[0], step), _at(b, metrics[1], step)
            if here != before:  # between two evaluations nothing is new
                yield from _lines(f"{words[space]}, by {short(step)} steps", step, *here)
            before = here
    for kind, what in (("last5", "training, last five"), ("best", "training, best")):
        yield from _lines(what, None, *(numbers.scores(g, g.score.metric("summary", kind)) for g in (a, b)))
    yield from _lines("final evaluation", None, *(numbers.scores(g, g.score.metric("final")) for g in (a, b)))


def _at(group: Group, metric: str, step: int) -> Scores:
    points = {seed_of(run): numbers.at(run, metric, step) for run in group.runs}
    return Scores(group, metric, {seed: point for seed, point in points.items() if point})


def _lines(what: str, step: int | None, a: Scores, b: Scores) -> Iterator[Line]:
    """A line if either side measured it; a difference if both did, of one task's score."""
    if a.by_seed or b.by_seed:
        alike = a.by_seed and b.by_seed and a.group.task == b.group.task and a.group.score == b.group.score
        yield Line(what, a.metric or b.metric, step, a, b, numbers.pair(a, b) if alike else None)


# How it is shown


def heading(group: Group) -> str:
    """`3f2a1b0c  door · ResNet34 · DAPG  seed 0  1.2M steps`"""
    ids = ", ".join(run.run_id[:ID] for run in group.runs)
    seeds = ", ".join(str(seed_of(run)) for run in group.runs)
    return f"{ids}  {group.label}  seed{'s' * (len(group.runs) > 1)} {seeds}  {_steps(group)} steps"


def _steps(group: Group) -> str:
    return _joined(short(run.steps) for run in group.runs)


def _shown(line: Line) -> tuple[str, ...]:
    values = [s.group.score.text(s.mean) if s.mean is not None else ABSENT for s in (line.a, line.b)]
    difference = ""
    if line.pair is not None:
        difference = f"{line.pair.gap:+.1f}"
        if math.isfinite(line.pair.low):
            difference += f" ({line.pair.low:+.1f} to {line.pair.high:+.1f})"
    names = " / ".join(dict.fromkeys(s.group.score.name for s in (line.a, line.b)))
    return f"{names}, {line.what}", *values, difference


def _time(a: Group, b: Group) -> Iterator[tuple[str, str, str]]:
    ends = [numbers.final(group) for group in (a, b)]
    yield "trained for, mean of a run", *(duration(3600 * end.hours) for end in ends)  # type: ignore[misc]
    yield "environment steps/s", *(f"{end.speed:.0f}" if end.speed else ABSENT for end in ends)  # type: ignore[misc]


def section(
    title: str, rows: Sequence[Sequence[str]], say: Callable[[str], None], width: int | None, *more: str
) -> None:
    """Print columns that stand below each other; where the screen is too narrow, the values below their name."""
    if not rows:
        return
    table = [(title, "A", "B", *more), *((f"  {row[0]}", *row[1:]) for row in rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    say("")
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        for row in table:
            say("  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip())
        return
    say(title)
    for row in table[1:]:
        say(row[0])
        for name, text in zip(table[0][1:], row[1:], strict=True):
            if text:
                say(f"    {name}  {text}")


def _side(group: Group) -> dict[str, Any]:
    end = numbers.final(group)
    return {
        "runs": [_run(run) for run in group.runs],
        "task": group.task,
        "method": group.method,
        "seconds": 3600 * end.hours,
        "steps_per_second": end.speed,
    }


def _run(run: Result) -> dict[str, Any]:
    return {"id": run.run_id, "name": run.name, "seed": seed_of(run), "status": run.status, "steps": run.steps}


def _line(line: Line) -> dict[str, Any]:
    pair = line.pair
    interval = [pair.low, pair.high] if pair and math.isfinite(pair.low) else None
    return {
        "what": line.what,
        "metric": line.metric,
        "step": line.step,
        "a": finite(line.a.mean),
        "b": finite(line.b.mean),
        "difference": finite(pair.gap) if pair else None,
        "interval": interval,
        "how": pair.how if pair else None,
        "better": pair.better if pair and min(pair.seeds) >= ENOUGH else None,
    }


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))
