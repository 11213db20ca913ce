"""The report's tables, as text in cells."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrl.report import numbers
from rrl.report.figures import Look, short
from rrl.report.groups import ABSENT, UNSEEN, WITHIN, Group, Report, pictures, seed_of
from rrl.report.notices import commit
from rrl.report.numbers import EVAL, FINAL, PARTS, THRESHOLDS, TRAIN, Aggregate, Compute, Effort, Final, Pair

Looks = dict[tuple[object, ...], Look]
NONE = "\N{EM DASH}"
# Where a success rate is from, in a word.
SOURCES = {
    FINAL: "final",
    EVAL: "last",
    f"{FINAL}_sampled": "final",
    f"{EVAL}_sampled": "last",
    TRAIN: "training",
    "": "",
}
# Facts beside the settings: what the environment filled in, and versions.
FACTS = (
    *("reward", "cameras", "horizon", "action_repeat", "demos"),
    *("mujoco", "gymnasium-robotics", "dm-control", "torch", "rrl"),
)


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


def final(found: Sequence[Final], looks: Looks) -> Table:
    """A row for each group; columns that no group has anything in are left out."""
    with_settings = any(f.group.settings for f in found)
    with_blind = any(f.blind is not None for f in found)
    columns = ["task", "encoder", "agent", *(["settings"] if with_settings else []), "n", "success (%)"]
    columns += [
        "95 % Wilson",
        "success_rrl (%)",
        "sampled (%)",
        *(["blind control (%)"] if with_blind else []),
    ]
    columns += ["seeds", "samples", "hours", "steps/s"]
    rows = []
    for f in found:
        g = f.group
        row = [Cell(g.task), Cell(g.encoder, look=looks[g.key]), Cell(g.agent)]
        row += [Cell(", ".join(together(f"{k} {v}") for k, v in g.settings) or NONE)] if with_settings else []
        row += [number(str(f.episodes) if f.episodes else NONE)]
        row += [number(percent(f.success), SOURCES[f.source])]
        row += [number(between(f.low, f.high) if f.episodes else NONE), number(percent(f.rrl))]
        row += [number(percent(f.sampled), SOURCES[f.sampled_source].partition(",")[0] if f.sampled_source else "")]
        row += [number(percent(f.blind))] if with_blind else []
        runs = len(g.runs)
        counted = f.seeds if f.source else len(g.measured)
        row += [number(str(counted), f"of {runs}" if counted < runs else "")]
        rows.append([*row, *effort_cells(f.effort)])
    return Table(columns, rows)


def effort_cells(effort: Effort) -> list[Cell]:
    """Samples, hours, steps/s."""
    least, most = (short(s) for s in effort.samples)
    hours, speed = (f"{effort.hours:.2g}", f"{effort.speed:.0f}") if effort.speed else (NONE, NONE)
    return [number(least if least == most else f"{least} to {most}"), number(hours), number(speed)]


def final_csv(found: Sequence[Final], path: Path) -> None:
    """The final table with all digits."""
    head = "task,encoder,agent,settings,n,wins,success,low,high,success_rrl,sampled,blind,source,sampled_source"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(
            [
                *head.split(","),
                "seeds",
                "success_seeds",
                "samples_min",
                "samples_max",
                "hours",
                "steps_per_second",
            ]
        )
        for f in found:
            g = f.group
            settings = ", ".join(f"{k} {v}" for k, v in g.settings)
            interval = (f.low, f.high) if f.episodes else ("", "")
            values = [
                g.task,
                g.encoder,
                g.agent,
                settings,
                f.episodes,
                f.wins,
                f.success,
                *interval,
                f.rrl,
                f.sampled,
            ]
            values += [
                f.blind,
                f.source,
                f.sampled_source,
                len(g.runs),
                f.seeds,
                *f.effort.samples,
                f.effort.hours,
                f.effort.speed,
            ]
            out.writerow(["" if v is None else v for v in values])


def curves_csv(report: Report, path: Path) -> None:
    """All success rates and returns of all runs, one measurement a line."""
    wanted = re.compile(r"(train|eval|final)/(\w*success\w*|return|episodes)")
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["run", "name", "task", "encoder", "agent", "seed", "step", "metric", "value"])
        for group in report.groups:
            for run in group.all_runs:
                facts = [run.run_id, run.name, group.task, group.encoder, group.agent, seed_of(run)]
                for row in run.rows:
                    kept = {k: v for k, v in row.metrics.items() if wanted.fullmatch(k)}
                    out.writerows([*facts, row.step, metric, value] for metric, value in kept.items())


def thresholds(report: Report, looks: Looks) -> Table:
    """When training first showed 50 and 90 %, by group with success rates."""
    rows = []
    for group in report.counted.groups:
        row = [_name(group, report, looks)]
        for threshold in THRESHOLDS:
            found = numbers.reached(group, threshold)
            got = [f for f in found.firsts if f is not None]
            if not found.firsts:
                row.append(number(NONE, "no training episodes"))
            elif found.median is None:
                text = f"not reached by {short(found.trained)}" if not got else f"more than {short(found.trained)}"
                row.append(number(text, _of(got, found.firsts)))
            else:
                row.append(number(short(found.median), _of(got, found.firsts)))
        rows.append(row)
    return Table(["method", *(f"steps to {t:.0f} %" for t in THRESHOLDS)], rows)


def _of(got: Sequence[int], firsts: Sequence[int | None]) -> str:
    each = f": {', '.join(short(f) for f in sorted(got))}" if got and len(firsts) > 1 else ""
    return f"{len(got)} of {len(firsts)} seed{'s' if len(firsts) > 1 else ''}{each}"


def aggregate(found: Sequence[Aggregate], step: int, tasks: int, looks: Looks) -> Table:
    """Interquartile means by method."""

    def cell(value: tuple[float, float, float] | None) -> Cell:
        if value is None:
            return number(NONE)
        mean, low, high = value
        return number(percent(mean), between(low, high) if math.isfinite(low) else "one seed: no interval")

    rows = []
    for a in found:
        group = a.groups[0]
        missing = "" if len(a.groups) == tasks else f"{len(a.groups)} of {tasks} tasks only: not comparable"
        row = [Cell(group.method, missing, looks[group.key]), cell(a.end)]
        row += [cell(a.equal)] if step else []
        rows.append([*row, number(str(a.scores))])
    at = [f"IQM at {short(step)} steps (%)"] if step else []
    return Table(["method", "IQM at the end (%)", *at, "values"], rows)


def pairs(found: Sequence[Pair], looks: Looks, unit: str = "points") -> Table:
    """Differences at equal samples, in percentage points or in `return`."""
    rows = []
    for p in found:
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
    return Table(["A", "B", f"A - B ({unit})", "P(A > B)", "seeds, interval"], rows)


def compute(found: Sequence[Compute], report: Report, looks: Looks) -> Table:
    """Seconds per update by part, hours, devices."""
    rows = []
    for c in found:
        timed = sum(c.seconds.values()) > 0
        row = [_name(c.group, report, looks)]
        row += [number(f"{c.seconds[part]:.2f}" if timed else NONE) for part in PARTS]
        rows.append([*row, number(f"{c.hours:.2g}"), Cell("; ".join(c.devices))])
    return Table(["method", *PARTS, "hours, all runs", "device"], rows)


def differences(report: Report) -> Table:
    """Settings and facts in which groups differ, a column for each group."""
    rows = []
    for name in _names(report):
        values = [_setting(group, name) for group in report.groups]
        if len(set(values) - {ABSENT}) > 1 or (ABSENT in values and len(set(values)) > 1):
            rows.append([Cell(name.replace(".", ".\N{ZERO WIDTH SPACE}")), *map(Cell, values)])
    for name in (*FACTS, "git commit"):
        values = [_fact(group, name) for group in report.groups]
        if len(set(values) - {""}) > 1:
            rows.append([Cell(name, "as run"), *map(Cell, values)])
    return Table(["setting", *(group.label for group in report.groups)], rows, cards=False)


def same(report: Report) -> list[tuple[str, str]]:
    """(setting, value) of all that no group differs in."""
    found = [(name, {_setting(group, name) for group in report.groups}) for name in _names(report)]
    return [(name, next(iter(values))) for name, values in found if len(values) == 1]


def _names(report: Report) -> list[str]:
    return [n for n in dict.fromkeys(n for run in report.runs for n in run.params) if n != "seed"]


def _setting(group: Group, name: str) -> str:
    if name in UNSEEN and not pictures(group.runs[0]):
        return ABSENT
    if name not in WITHIN:
        return group.params.get(name, ABSENT)
    return _joined(run.params.get(name, ABSENT) for run in group.runs)


def _fact(group: Group, name: str) -> str:
    return _joined(
        commit(run) if name == "git commit" else run.tags.get(name, ABSENT) for run in group.runs if run.tags
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
