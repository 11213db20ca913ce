"""The report's pictures: matplotlib figures, and how they become parts of a page."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rrl.report.groups import Group, Report
from rrl.report.numbers import PARTS, Aggregate, Compute, Curve, curve, short
from rrl.score import Space

# Okabe and Ito's colours, told apart by colour-blind people, without the yellow that white swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (4, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
PART_COLOURS = ("#332288", "#88ccee", "#117733", "#ddcc77", "#cc6677", "#aa4499", "#999999")
INK = "#010203"  # replaced by the page's own text colour
WIDTH = 4.7  # inches of a panel: about as wide as a telephone, where text then keeps its size
LONGEST = 58  # characters that fit into a panel
STYLE: Any = {
    "font.size": 9.5,
    "svg.fonttype": "path",  # looks the same without any font
    "svg.hashsalt": "rrl",
    "text.parse_math": False,  # a name with dollars is no formula
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run it with `STYLE`: artists take their colours when they are made."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class Published:
    """A curve that others published, drawn as dotted points beside ours; percent where our score is."""

    label: str
    task: str
    """Such as `door`."""
    steps: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    space: Space = "train"
    """The figure that it belongs in."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure alike."""

    colour: str
    dash: Any


@dataclass(frozen=True)
class Drawn:
    """A figure as it goes into a page and beside it."""

    name: str
    title: str
    svg: str
    png: bytes


def looks(report: Report) -> dict[tuple[object, ...], Look]:
    """A colour for each method, with dashes when there are more methods than colours."""
    return {
        key: Look(COLOURS[n % len(COLOURS)], DASHES[n // len(COLOURS) % len(DASHES)])
        for n, key in enumerate(report.methods)
    }


@styled
def curves(
    groups: Sequence[Group],
    space: Space,
    published: Sequence[Published] = (),
    styles: dict[tuple[object, ...], Look] | None = None,
) -> Figure | None:
    """The score over environment steps of one task's groups: means, bands, single seeds thin, and what others
    published. None if none of them measured it."""
    lines = [(group, line) for group in groups if (line := curve(group, space))]
    if not lines:
        return None
    styles = styles or looks(Report(tuple(groups)))
    published = [p for p in published if p.task == groups[0].task and p.space == space]
    figure, axes = _figure(3.3)
    handles = [_line(axes, group, line, styles[group.key]) for group, line in lines]
    own = axes.get_xlim()[1]
    for other in published:
        axes.fill_between(other.steps, other.low, other.high, color=INK, alpha=0.1, linewidth=0)
        style: dict[str, Any] = {"color": INK, "linewidth": 1.4, "linestyle": ":", "marker": "o", "markersize": 4}
        axes.plot(other.steps, other.mean, **style)  # what was published are the points, not the line
        handles.append(Line2D([], [], label=other.label, **style))
    reach = max((max(p.steps) for p in published), default=0)
    score = groups[0].score
    axes.set(xlabel="environment steps", ylabel=score.axis, **({"ylim": (-3, 103)} if score.counted else {}))
    axes.set_xlim(left=0, right=max(own, min(reach, 2 * own), 1))  # ours must not shrink to a corner
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(True)
    axes.set_title(groups[0].task, loc="left", fontweight="bold")
    _legend(figure, handles)
    return figure


def _line(axes: Axes, group: Group, line: Curve, look: Look) -> Line2D:
    """Draw a group's curve; its entry in the legend."""
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dash}
    for steps, values in line.seeds if len(line.seeds) > 1 else ():
        axes.plot(steps, values, linewidth=0.7, alpha=0.45, **style)
    if line.band:
        axes.fill_between(line.steps, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
    marker = "o" if len(line.steps) < 12 else None
    axes.plot(line.steps, line.mean, linewidth=2, marker=marker, markersize=4, **style)
    return Line2D([], [], linewidth=2, label=_with_seeds(group, line), **style)


@styled
def aggregate(aggregates: Sequence[Aggregate], styles: dict[tuple[object, ...], Look], step: int) -> Figure | None:
    """Interquartile means with intervals, a line for each method: at the end (filled), at equal samples
    (open). None without any."""
    aggregates = [a for a in aggregates if a.end or a.equal]
    if not aggregates:
        return None
    names = [_wrapped(method.groups[0].method) for method in aggregates]
    rows, height = _rows(names, 0.27)
    figure, axes = _figure(0.9 + 0.62 * height)
    for method, name, n in zip(aggregates, names, rows, strict=True):
        colour = styles[method.groups[0].key].colour
        axes.text(0, n - 0.13, name, va="bottom", fontsize=9)
        for value, offset, fill in ((method.end, 0.08, colour), (method.equal, 0.32, "none")):
            if value is not None:
                mean, low, high = value
                axes.plot([low, high], [n + offset] * 2, color=colour, linewidth=2.2, alpha=0.6)
                axes.plot(mean, n + offset, "o", color=colour, markerfacecolor=fill, markersize=7)
    axes.set(xlabel="success (%), interquartile mean", xlim=(-3, 103), ylim=(height - 0.4, -0.55), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    ends = [("at the end", INK)] + ([(f"at {short(step)} steps", "none")] if step else [])
    for label, fill in ends:
        axes.plot([], [], "o", color=INK, markerfacecolor=fill, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, handletextpad=0.2)
    return figure


@styled
def times(computes: Sequence[Compute], report: Report) -> Figure | None:
    """Stacked bars: seconds per update by part, a bar for each group. None if nothing was timed."""
    computes = [c for c in computes if sum(c.seconds.values()) > 0]
    if not computes:
        return None
    several = len(report.tasks) > 1
    names = [_wrapped(c.group.label if several else c.group.method) for c in computes]
    rows, height = _rows(names, 0.3)
    figure, axes = _figure(1.25 + 0.55 * height)
    most = max(sum(c.seconds.values()) for c in computes)
    for group, name, n in zip(computes, names, rows, strict=True):
        left = 0.0
        axes.text(0, n - 0.22, name, va="bottom", fontsize=9)
        for part, colour in zip(PARTS, PART_COLOURS, strict=True):
            first = part if group is computes[0] else None
            axes.barh(n + 0.1, group.seconds[part], 0.48, left, color=colour, label=first)
            left += group.seconds[part]
        axes.text(left + 0.01 * most, n + 0.1, f"{left:.3g} s", va="center", fontsize=9)
    axes.set(xlabel="seconds per update", xlim=(0, 1.13 * most), ylim=(height - 0.5, -0.6), yticks=[])
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        borderpad=0,
        handlelength=1,
        columnspacing=1,
    )
    return figure


@styled
def draw(figure: Figure, name: str, title: str) -> Drawn:
    """A figure as inline SVG, its legend left to the page, and as PNG with its legend."""
    png, text = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, facecolor="white")
    if figure.legends:
        width, height = figure.get_size_inches()
        labels = [text.get_text() for text in figure.legends[0].texts]
        figure.set_size_inches(width, height - _legend_height(labels))
        figure.legends.clear()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Drawn(name, title, inline(text.getvalue(), name, title), png.getvalue())


def inline(svg: str, name: str, title: str) -> str:
    """matplotlib's SVG as part of a page: ids of its own, the page's text colour, no URL in it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    label = re.sub(r'[<>&"]', " ", title)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return svg.replace(INK, "currentColor")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the axes, in a figure made higher by what that takes."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _legend_height([str(handle.get_label()) for handle in handles]))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize=9, handlelength=3)


def _legend_height(labels: Sequence[str]) -> float:
    return 0.12 + sum(0.19 + 0.15 * label.count("\n") for label in labels)


def _rows(names: Sequence[str], line: float) -> tuple[list[float], float]:
    """Where the bars lie, one apart and `line` more for each further line of a name above it; and how far
    they reach."""
    places: list[float] = []
    height = 0.0
    for name in names:
        height += line * name.count("\n")
        places.append(height)
        height += 1
    return places, height


def _wrapped(text: str) -> str:
    """A method's name in lines that fit into a panel, broken between settings: its end is often all that
    tells it from another."""
    whole = "\xa0· ".join(part.replace(" ", "\xa0") for part in text.split(" · "))
    return textwrap.fill(whole, LONGEST, break_on_hyphens=False).replace("\xa0", " ")


def _with_seeds(group: Group, line: Curve) -> str:
    """A method's name and of how many seeds its line is the mean; thin lines show them all."""
    seeds = len(line.seeds)
    counted = f"{seeds - len(line.short)} of {seeds}" if line.short else f"{seeds}"
    return _wrapped(f"{group.method} · {counted} seed{'s' if seeds > 1 else ''}")
