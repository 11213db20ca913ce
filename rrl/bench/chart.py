"""What `rrl bench compute` makes of its measurements: the cost of the paper's 4M environment steps, projected from unit
costs, as a table and as a picture (the left of its figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rrl.bench import measure
from rrl.bench.compute import COUNTS, STEPS
from rrl.bench.measure import Entry
from rrl.machine.paths import charts
from rrl.store import files as store

PARTS = {"encode": "#117733", "act": "#88ccee", "learn": "#332288", "augment": "#cc6677", "pretrain": "#ddcc77"}
"""Colours."""
NAMES = {"learn": "update"}
PAPER = ("FERM", "RRL(ResNet34)", "about 5 times")
"""What the paper's section 5.5 says of its figure: the first costs so much more than the second."""


@dataclass(frozen=True)
class Cost:
    """Of `STEPS` environment steps of one run."""

    name: str
    hours: Mapping[str, float]
    """By part."""
    multiply_adds: Mapping[str, float]
    """By part; augmentation has none."""


def costs(entries: Sequence[Entry]) -> list[Cost]:
    """From the median time of a step, and its parts' shares of all repeats."""
    found = []
    for entry in entries:
        hours = STEPS / float(np.median(entry.rates)) / 3600
        counts = {part: STEPS * float(entry.facts[f"{part}_multiply_adds"]) for part in COUNTS}
        found.append(Cost(entry.name, {part: hours * share for part, share in entry.seconds.items()}, counts))
    return found


def table(costs: Sequence[Cost]) -> Table:
    """Hours by part, and multiply-adds."""
    parts = [part for part in PARTS if any(part in cost.hours for cost in costs)]
    made = Table(title=f"hours of computation in {STEPS / 1e6:g}M environment steps, projected", title_justify="left")
    for column in ("", *(NAMES.get(part, part) for part in parts), "all", "multiply-adds"):
        made.add_column(column, justify="right" if column else "left")
    for cost in costs:
        hours = [f"{cost.hours[part]:,.2f}" if part in cost.hours else "" for part in parts]
        made.add_row(cost.name, *hours, f"{sum(cost.hours.values()):,.2f}", f"{sum(cost.multiply_adds.values()):.2e}")
    return made


def ratios(entries: Sequence[Entry], settings: Sequence[str] = ()) -> list[str]:
    """How much more the paper's baseline costs than the paper's method, and what the paper says; without them, each of
    the others against the first. Within the turns of the measurement. `settings`: what a user changed of the runs."""
    dear, cheap, published = PAPER
    by_name = {entry.name: entry for entry in entries}
    if {dear, cheap} <= by_name.keys():
        own = f", not with {'; '.join(settings)}" if settings else ""
        return [f"{_ratio(by_name[dear], by_name[cheap])}; the paper says {published}{own}"]
    first, *others = entries
    return [_ratio(entry, first) for entry in others]


def _ratio(one: Entry, other: Entry) -> str:
    times = [theirs / ours for ours, theirs in zip(one.rates, other.rates, strict=True)]
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    counts = float(one.facts["multiply_adds"]) / float(other.facts["multiply_adds"])
    took = f"{middle:.1f} times the time (quartiles {low:.1f} to {high:.1f})"
    return f"{one.name} against {other.name}: {took}, {counts:.1f} times the multiply-adds"


def told(entries: Sequence[Entry], settings: Sequence[str] = ()) -> list[str]:
    """Lines that say what was measured, and how."""
    facts, turns = [entry.facts for entry in entries], len(entries[0].rates)
    blank = [entry.name for entry in entries if entry.facts["weights"] == "untrained"]

    def all_of(name: str) -> str:
        return " or ".join(dict.fromkeys(str(each[name]) for each in facts))

    turned, processor = f"{turns} turn{'' if turns == 1 else 's'}", measure.machine()["processor"]
    lines = [
        f"{STEPS / 1e6:g}M environment steps of {all_of('task')}, projected from the unit costs of {turned} on "
        f"{processor}; without simulation and rendering",
        f"threads: {all_of('threads')}; environments: {all_of('environments')}; {all_of('precision')}, computed by "
        f"{all_of('backend')}",
    ]
    lines += [f"untrained weights, which change no cost: {', '.join(blank)}"] if blank else []
    return lines + ratios(entries, settings)


def files(chart: Path) -> tuple[Path, Path]:
    """What `draw` writes; UserError as `charts`."""
    return charts(chart)


def draw(costs: Sequence[Cost], told: Sequence[str], chart: Path) -> None:
    """Stacked bars, hours beside multiply-adds, a row for each run; `told` stands above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.1 + 0.42 * len(costs)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, [cost.hours for cost in costs], "{:,.1f} h")
    _bars(right, [cost.multiply_adds for cost in costs], "{:.2g}")
    left.set(xlabel="hours of computation", ylim=(len(costs) - 0.5, -0.5))
    left.set_yticks(range(len(costs)), [cost.name for cost in costs])
    right.set(xlabel="multiply-adds (convolutions and matrix products)")
    figure.suptitle("\n".join(told), fontsize=8, x=0.01, ha="left")
    bars = {bar.get_label(): bar for axes in (left, right) for bar in axes.containers}
    figure.legend(bars.values(), bars, loc="outside lower center", ncols=len(PARTS), frameon=False, fontsize=9)
    for path in files(chart):
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.writing(path) as file:
            figure.savefig(file, format=path.suffix[1:])


def _bars(axes: Any, costs: Sequence[Mapping[str, float]], form: str) -> None:
    ends = np.zeros(len(costs))
    for part, colour in PARTS.items():
        widths = np.array([cost.get(part, 0.0) for cost in costs])
        if widths.any():
            axes.barh(range(len(costs)), widths, 0.6, ends, color=colour, label=NAMES.get(part, part))
            ends += widths
    for row, end in enumerate(ends):
        axes.text(end + 0.01 * ends.max(), row, form.format(end), va="center", fontsize=9)
    axes.set_xlim(0, 1.25 * ends.max())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
