"""The report's tables, as text in cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rrl.report import numbers
from rrl.report.figures import Look
from rrl.report.groups import ABSENT, WITHIN, Group, Report, setting
from rrl.report.notices import commit
from rrl.report.numbers import (
    COSTS,
    PARTS,
    SOURCES,
    THRESHOLDS,
    Aggregate,
    Compute,
    Cost,
    Final,
    Pair,
    Reached,
    Scores,
    short,
)
from rrl.score import Score
from rrl.statistics import median_reached

Looks = dict[tuple[object, ...], Look]
NONE = "\N{EM DASH}"
FACTS = ("reward", "cameras", "horizon", "action_repeat", "demos")
"""Tags beside the settings: what the environment filled in."""


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place."""

    text: str
    small: str = ""
    """A second line."""
    look: Look | None = None
    """Shows the method's colour."""
    number: bool = False


@dataclass(frozen=True)
class Table:
    """Cells by row; `cards`: each row becomes a card on a narrow screen, or else the table scrolls."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    cards: bool = True


def percent(value: float | None) -> str:
    """`97.5`, or a dash."""
    return NONE if value is None else f"{value:.1f}"


def between(low: float, high: float, form: str = ".1f") -> str:
    """`88.9 to 98.2`"""
    return f"{low:{form}} to {high:{form}}"


def together(text: str) -> str:
    """Not broken into lines where it is short."""
    return text.replace(" ", "\N{NO-BREAK SPACE}") if len(text) < 24 else text


def number(text: str, small: str = "") -> Cell:
    """Text that stands at the right."""
    return Cell(text, small, number=True)


def _name(group: Group, report: Report, looks: Looks) -> Cell:
    return Cell(group.label if len(report.tasks) > 1 else group.method, look=looks[group.key])


def plus_minus(mean: float | None, std: float | None) -> str:
    """`828 ± 27`, `828` without a deviation, or a dash; a decimal below 100."""
    if mean is None:
        return NONE
    digits = 0 if abs(mean) >= 100 else 1
    return together(f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}"))


def final(finals: Sequence[Final], looks: Looks) -> Table:
    """Where groups with one kind of score ended, a row for each; columns that no group has anything in are left
    out."""
    kinds = list(dict.fromkeys(kind for final in finals for kind in final.controls))
    rows = []
    for f in finals:
        settings = ", ".join(together(f"{name} {value}") for name, value in f.group.settings)
        row = {"task": Cell(f.group.task), "encoder": Cell(f.group.encoder, look=looks[f.group.key])}
        row |= {"agent": Cell(f.group.agent), "settings": Cell(settings or NONE)}
        rows.append(row | (_counted(f, kinds) if f.group.score.counted else _number(f, kinds)) | _effort(f))
    empty = {} if any(f.group.settings for f in finals) else {"settings"}
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in empty))
    return Table(columns, [[row.get(name, number(NONE)) for name in columns] for row in rows])


def _counted(final: Final, kinds: Sequence[str]) -> dict[str, Cell]:
    """A share of episodes with its interval, and what it was under other rules and in other circumstances."""
    group, scores, sampled = final.group, final.scores, final.sampled
    return {
        "n": _episodes(scores),
        group.score.axis: number(percent(scores.mean), _source(scores)),
        "95 % Wilson": number(between(*scores.interval) if scores.interval else NONE),
        **{f"{flag} (%)": number(percent(value)) for flag, value in final.flags.items()},
        "sampled (%)": number(percent(sampled.mean), _source(sampled)),
        **{f"{kind} (%)": number(percent(final.controls.get(kind))) for kind in kinds},
        "seeds": _seeds(len(scores.by_seed) if scores.metric else len(group.measured), group),
    }


def _number(final: Final, kinds: Sequence[str]) -> dict[str, Cell]:
    """Mean and standard deviation over seeds."""
    group, scores = final.group, final.scores
    return {
        group.score.axis: number(plus_minus(scores.mean, scores.std), _source(scores)),
        **{kind: number(plus_minus(final.controls.get(kind), None)) for kind in kinds},
        "seeds": _seeds(len(scores.by_seed), group),
        "n": _episodes(scores),
    }


def _seeds(counted: int, group: Group) -> Cell:
    return number(str(counted), f"of {len(group.runs)}" if counted < len(group.runs) else "")


def _episodes(scores: Scores) -> Cell:
    return number(str(scores.episodes) if scores.episodes else NONE)


def _source(scores: Scores) -> str:
    return SOURCES.get(scores.metric.partition("/")[0], "")


def _effort(final: Final) -> dict[str, Cell]:
    least, most = map(short, final.samples)
    hours, speed = (f"{final.hours:.2g}", f"{final.speed:.0f}") if final.speed else (NONE, NONE)
    samples = least if least == most else f"{least} to {most}"
    return {"samples": number(samples), "hours": number(hours), "steps/s": number(speed)}


def thresholds(report: Report, looks: Looks) -> Table:
    """When training first showed 50 and 90 %, by group with success rates."""
    rows = []
    for group in report.judged(counted=True).groups:
        cells = [_reached(numbers.reached(group, threshold)) for threshold in THRESHOLDS]
        rows.append([_name(group, report, looks), *cells])
    return Table(["method", *(f"steps to {t:.0f} %" for t in THRESHOLDS)], rows)


def _reached(reached: Reached) -> Cell:
    seeds = [first for first in reached.firsts if first is not None]
    if not reached.firsts:
        return number(NONE, "no training episodes")
    of = f"{len(seeds)} of {len(reached.firsts)} seed{'s' if len(reached.firsts) > 1 else ''}"
    if seeds and len(reached.firsts) > 1:
        of += f": {', '.join(short(first) for first in sorted(seeds))}"
    if reached.median is not None:
        return number(short(reached.median), of)
    return number(f"{'more than' if seeds else 'not reached by'} {short(reached.trained)}", of)


def aggregate(aggregates: Sequence[Aggregate], step: int, tasks: int, looks: Looks) -> Table:
    """Interquartile means by method."""

    def cell(value: tuple[float, float, float] | None) -> Cell:
        if value is None:
            return number(NONE)
        mean, low, high = value
        return number(percent(mean), between(low, high) if math.isfinite(low) else "one seed: no interval")

    rows = []
    for a in aggregates:
        group = a.groups[0]
        missing = "" if len(a.groups) == tasks else f"{len(a.groups)} of {tasks} tasks only: not comparable"
        row = [Cell(group.method, missing, looks[group.key]), cell(a.end)]
        row += [cell(a.equal)] if step else []
        rows.append([*row, number(str(a.scores))])
    at = [f"IQM at {short(step)} steps (%)"] if step else []
    return Table(["method", "IQM at the end (%)", *at, "values"], rows)


def pairs(pairs: Sequence[Pair], looks: Looks, score: Score) -> Table:
    """Differences at equal samples, in percentage points or in what the score is."""
    rows = []
    for p in pairs:
        a, b = p.seeds
        rows.append(
            [
                Cell(p.first.method, look=looks[p.first.key]),
                Cell(p.second.method, look=looks[p.second.key]),
                number(f"{p.gap:+.1f}", together(between(p.low, p.high, "+.1f")) if p.low == p.low else ""),
                number(f"{p.better:.2f}"),
                Cell(f"{a} pair{'s' if a > 1 else ''}" if p.paired else f"unpaired, {a} and {b} seeds", p.how),
            ]
        )
    unit = "points" if score.counted else score.name
    return Table(["A", "B", f"A - B ({unit})", "P(A > B)", "seeds, interval"], rows)


def compute(computes: Sequence[Compute], report: Report, looks: Looks) -> Table:
    """Seconds per update by part, hours, devices."""
    rows = []
    for c in computes:
        timed = sum(c.seconds.values()) > 0
        row = [_name(c.group, report, looks)]
        row += [number(f"{c.seconds[part]:.2f}" if timed else NONE) for part in PARTS]
        rows.append([*row, number(f"{c.hours:.2g}"), Cell("; ".join(c.devices))])
    return Table(["method", *PARTS, "hours, all runs", "device"], rows)


def costs(found: Sequence[Cost], report: Report, looks: Looks) -> Table:
    """Seconds by part, multiply-adds, peak memory, and what it cost to reach the thresholds."""
    parts = [part for part in COSTS if any(part in c.seconds for c in found)]
    reached = list(dict.fromkeys(threshold for c in found for threshold in c.reached))
    rows = []
    for c in found:
        seeds = "" if c.seeds == len(c.group.runs) else f"of {c.seeds} of {len(c.group.runs)} seeds"
        name = replace(_name(c.group, report, looks), small=seeds)
        seconds = [number(_significant(c.seconds[part]) if part in c.seconds else NONE) for part in parts]
        all_of_it = [number(_significant(c.compute)), number(f"{c.multiply_adds:.2e}"), number(f"{c.memory:,.0f}")]
        rows.append([name, *seconds, *all_of_it, *(_paid(c.reached.get(threshold)) for threshold in reached)])
    columns = [f"{part.replace('_', ' ')} (s)" for part in parts]
    until = [f"compute to {threshold:.0f} %" for threshold in reached]
    return Table(["method", *columns, "compute (s)", "multiply-adds", "peak memory (MB)", *until], rows)


def _paid(firsts: Sequence[tuple[int, float] | None] | None) -> Cell:
    """Medians over seeds, one that never got there counting as infinitely late."""
    if firsts is None:
        return number(NONE)
    steps, seconds = (median_reached([None if first is None else first[k] for first in firsts]) for k in (0, 1))
    if steps is None or seconds is None:
        return number(NONE, f"by {sum(first is not None for first in firsts)} of {len(firsts)} seeds")
    return number(f"{_significant(seconds)} s", f"{short(steps)} steps")


def _significant(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def differences(report: Report) -> Table:
    """Settings and facts in which groups differ, a column for each group."""
    rows = []
    for name in _names(report):
        values = [_setting(group, name) for group in report.groups]
        if len(set(values) - {ABSENT}) > 1 or (ABSENT in values and len(set(values)) > 1):
            rows.append([Cell(name.replace(".", ".\N{ZERO WIDTH SPACE}")), *map(Cell, values)])
    for name in (*FACTS, *report.packages, "rrl", "git commit"):
        values = [_fact(group, name) for group in report.groups]
        if len(set(values) - {""}) > 1:
            rows.append([Cell(name, "as run"), *map(Cell, values)])
    return Table(["setting", *(group.label for group in report.groups)], rows, cards=False)


def same(report: Report) -> list[tuple[str, str]]:
    """(setting, value) of all that no group differs in."""
    values = {name: {_setting(group, name) for group in report.groups} for name in _names(report)}
    return [(name, held.pop()) for name, held in values.items() if len(held) == 1]


def _names(report: Report) -> list[str]:
    return [n for n in dict.fromkeys(n for run in report.runs for n in run.params) if n != "seed"]


def _setting(group: Group, name: str) -> str:
    if name in WITHIN:
        return _joined(run.params.get(name, ABSENT) for run in group.runs)
    return setting(group, name) or ABSENT


def _fact(group: Group, name: str) -> str:
    return _joined(
        commit(run) if name == "git commit" else run.tags.get(name, ABSENT) for run in group.runs if run.tags
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
