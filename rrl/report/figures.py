"""The report's pictures: matplotlib figures, and how they become parts of a page and files for a paper."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rrl.report.groups import Group, Report
from rrl.report.numbers import PARTS, Aggregate, Axis, Compute, Curve, curve, short
from rrl.score import Space

# Okabe and Ito's colours, told apart by colour-blind people, without the yellow that white swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (4, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
PART_COLOURS = ("#332288", "#88ccee", "#117733", "#ddcc77", "#cc6677", "#aa4499", "#999999")
INK = "#010203"  # replaced by the page's own text colour
DRAWN_BY = "drawn by rrl report"
"""Stands in every file of a figure, and tells it from other people's."""
X_LABELS: dict[Axis, str] = {
    "steps": "environment steps",
    "log-steps": "environment steps",
    "hours": "wall-clock hours",
}
MOST_COLUMNS = 4  # of panels
STYLE: Any = {
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


@dataclass(frozen=True)
class Medium:
    """What a figure is drawn for."""

    width: float
    """Inches of a figure."""
    across: float
    """Inches of a figure of several panels."""
    height: float
    """Inches of a panel of curves, its labels included."""
    text: float
    """Points, of axes and their labels."""
    small: float
    """Points, of what methods are called."""
    longest: int
    """Characters of small text that fit into `width`."""
    line: float
    """Points, of a mean's line; other lines and markers are drawn in proportion."""
    style: Any
    """matplotlib's settings."""

    @property
    def row(self) -> float:
        """How high a line of small text is, on the page 1."""
        return self.small / 9


# About as wide as a telephone, where text then keeps its size; as paths text looks the same without any font.
PAGE = Medium(4.7, 9.4, 3.3, 9.5, 9, 58, 2, {"svg.fonttype": "path"})
# A column, and both columns, of a paper; text that can be searched and edited.
PAPER_STYLE = {"svg.fonttype": "none", "pdf.fonttype": 42, "axes.titlesize": "medium", "axes.linewidth": 0.6}
PAPER = Medium(3.3, 6.75, 2.3, 8, 8, 43, 1.4, PAPER_STYLE)


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run it with `STYLE` and that of its `medium` (by default `PAGE`): artists take their colours when they are
    made."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        medium = kwargs.get("medium", PAGE)
        assert isinstance(medium, Medium)
        with matplotlib.rc_context({**STYLE, "font.size": medium.text, **medium.style}):
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
    score: str = "success"
    """The name of what its numbers are."""

    def beside(self, group: Group) -> bool:
        """Does it belong beside this group's curve: is it of its task, and of what that is judged by?"""
        return self.task == group.task and self.score == group.score.name

    def over(self, x: Axis) -> Published | None:
        """What of it has a place on this axis, as of our curves: on a logarithmic one not step 0; nobody published
        hours."""
        first = sum(step <= 0 for step in self.steps) if x == "log-steps" else 0
        if x == "hours" or first == len(self.steps):
            return None
        mean, low, high = self.mean[first:], self.low[first:], self.high[first:]
        return replace(self, steps=self.steps[first:], mean=mean, low=low, high=high)


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
    inline: str
    """SVG, without a legend."""
    files: Mapping[str, bytes]
    """By ending: `png` for screens, `svg` and `pdf` for a paper."""


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
    *,
    x: Axis = "steps",
    medium: Medium = PAGE,
) -> Figure | None:
    """The score over environment steps (or hours) of one task's groups: means, bands, single seeds thin, and what
    others published (over steps). None if none of them measured it."""
    lines = _lines(groups, space, x)
    if not lines:
        return None
    figure, axes = _figure(medium, medium.height)
    styles = styles or looks(Report(tuple(groups)))
    others = _panel(axes, lines, [p for p in published if p.space == space], styles, x, medium, medium.width)
    axes.set(xlabel=X_LABELS[x], ylabel=groups[0].score.axis)
    _legend(figure, [_entry([each], styles, medium) for each in lines] + others, medium)
    return figure


@styled
def grid(
    tasks: Mapping[str, Sequence[Group]],
    space: Space,
    published: Sequence[Published] = (),
    styles: dict[tuple[object, ...], Look] | None = None,
    *,
    x: Axis = "steps",
    medium: Medium = PAGE,
) -> Figure | None:
    """Such curves of several tasks, a panel for each, and one legend. None if less than two of them were measured."""
    panels = [lines for groups in tasks.values() if (lines := _lines(groups, space, x))]
    if len(panels) < 2:
        return None
    styles = styles or looks(Report(tuple(group for groups in tasks.values() for group in groups)))
    rows = -(-len(panels) // MOST_COLUMNS)
    columns = -(-len(panels) // rows)
    scores = [lines[0][0].score for lines in panels]
    figure = Figure(figsize=(medium.across, rows * medium.height * 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False, sharey=all(score.counted for score in scores)).flat
    others: dict[str, Line2D] = {}
    for n, (axes, lines) in enumerate(zip(places, panels, strict=False)):
        theirs = [p for p in published if p.space == space]
        drawn = _panel(axes, lines, theirs, styles, x, medium, medium.across / columns)
        others |= {str(handle.get_label()): handle for handle in drawn}
        if n % columns == 0 or scores[n].axis != scores[n - 1].axis:
            axes.set_ylabel(scores[n].axis)
        if n + columns >= len(panels):
            axes.set_xlabel(X_LABELS[x])
    for axes in list(places)[len(panels) :]:
        axes.remove()
    methods: dict[tuple[object, ...], list[tuple[Group, Curve]]] = {}
    for group, line in (each for lines in panels for each in lines):
        methods.setdefault(group.key, []).append((group, line))
    entries = [_entry(methods[key], styles, medium) for key in styles if key in methods]
    _legend(figure, [*entries, *others.values()], medium, columns=2)
    return figure


def _lines(groups: Sequence[Group], space: Space, x: Axis) -> list[tuple[Group, Curve]]:
    return [(group, line) for group in groups if (line := curve(group, space, x))]


def _panel(
    axes: Axes,
    lines: Sequence[tuple[Group, Curve]],
    published: Sequence[Published],
    styles: dict[tuple[object, ...], Look],
    x: Axis,
    medium: Medium,
    width: float,
) -> list[Line2D]:
    """Draw one task's curves into a panel of so many inches; the legend's entries of what others published on it."""
    first = lines[0][0]
    axes.set_xscale("log" if x == "log-steps" else "linear")
    for group, line in lines:
        _line(axes, line, styles[group.key], medium)
    left, own = axes.get_xlim()
    published = [placed for p in published if p.beside(first) and (placed := p.over(x))]
    handles = []
    for other in published:
        axes.fill_between(other.steps, other.low, other.high, color=INK, alpha=0.1, linewidth=0)
        style: dict[str, Any] = {"color": INK, "linewidth": 0.7 * medium.line, "linestyle": ":"}
        style |= {"marker": "o", "markersize": 2 * medium.line}
        axes.plot(other.steps, other.mean, **style)  # what was published are the points, not the line
        handles.append(Line2D([], [], label=textwrap.fill(other.label, medium.longest), **style))
    reach = max((max(p.steps) for p in published), default=0)
    right = max(own, 1.1 * reach if x == "log-steps" else min(reach, 2 * own))  # ours must not shrink to a corner
    _x_axis(axes, x, left, right, max(2, round(12 * width / medium.text)))
    if first.score.counted:
        axes.set_ylim(-3, 103)
    axes.grid(True)
    axes.set_title(first.task, loc="left", fontweight="bold")
    return handles


def _x_axis(axes: Axes, x: Axis, left: float, right: float, ticks: int) -> None:
    """Limits and at most so many ticks."""
    if x == "log-steps":
        axes.set_xlim(left, right)
        steps = (1.0, 2.0, 5.0) if right < 20 * left else (1.0, 3.0) if right < 300 * left else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=ticks))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, right if x == "hours" else max(right, 1))
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=x == "steps"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: short(place)))


def _line(axes: Axes, line: Curve, look: Look, medium: Medium) -> None:
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dash}
    for places, values in line.seeds if len(line.seeds) > 1 else ():
        axes.plot(places, values, linewidth=0.35 * medium.line, alpha=0.45, **style)
    if line.band:
        axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
    marker = "o" if len(line.x) < 12 else None
    axes.plot(line.x, line.mean, linewidth=medium.line, marker=marker, markersize=2 * medium.line, **style)


def _entry(lines: Sequence[tuple[Group, Curve]], styles: dict[tuple[object, ...], Look], medium: Medium) -> Line2D:
    """A method's entry in the legend, for its lines on one or more tasks."""
    look, label = styles[lines[0][0].key], _with_seeds(lines, medium)
    return Line2D([], [], linewidth=medium.line, color=look.colour, linestyle=look.dash, label=label)


@styled
def aggregate(
    aggregates: Sequence[Aggregate],
    styles: dict[tuple[object, ...], Look],
    step: int,
    *,
    medium: Medium = PAGE,
) -> Figure | None:
    """Interquartile means with intervals, a line for each method: at the end (filled), at equal samples
    (open). None without any."""
    aggregates = [a for a in aggregates if a.end or a.equal]
    if not aggregates:
        return None
    names = [_wrapped(method.groups[0].method, medium) for method in aggregates]
    rows, height = _rows(names, 0.27)
    figure, axes = _figure(medium, (0.9 + 0.62 * height) * medium.row)
    for method, name, n in zip(aggregates, names, rows, strict=True):
        colour = styles[method.groups[0].key].colour
        axes.text(0, n - 0.13, name, va="bottom", fontsize=medium.small)
        for value, offset, fill in ((method.end, 0.08, colour), (method.equal, 0.32, "none")):
            if value is not None:
                mean, low, high = value
                axes.plot([low, high], [n + offset] * 2, color=colour, linewidth=1.1 * medium.line, alpha=0.6)
                axes.plot(mean, n + offset, "o", color=colour, markerfacecolor=fill, markersize=3.5 * medium.line)
    axes.set(xlabel="success (%), interquartile mean", xlim=(-3, 103), ylim=(height - 0.4, -0.55), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    ends = [("at the end", INK)] + ([(f"at {short(step)} steps", "none")] if step else [])
    for label, fill in ends:
        axes.plot([], [], "o", color=INK, markerfacecolor=fill, markersize=3 * medium.line, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, handletextpad=0.2)
    return figure


@styled
def times(computes: Sequence[Compute], report: Report, *, medium: Medium = PAGE) -> Figure | None:
    """Stacked bars: seconds per update by part, a bar for each group. None if nothing was timed."""
    computes = [c for c in computes if sum(c.seconds.values()) > 0]
    if not computes:
        return None
    several = len(report.tasks) > 1
    names = [_wrapped(c.group.label if several else c.group.method, medium) for c in computes]
    rows, height = _rows(names, 0.3)
    figure, axes = _figure(medium, (1.25 + 0.55 * height) * medium.row)
    most = max(sum(c.seconds.values()) for c in computes)
    for group, name, n in zip(computes, names, rows, strict=True):
        left = 0.0
        axes.text(0, n - 0.22, name, va="bottom", fontsize=medium.small)
        for part, colour in zip(PARTS, PART_COLOURS, strict=True):
            first = part if group is computes[0] else None
            axes.barh(n + 0.1, group.seconds[part], 0.48, left, color=colour, label=first)
            left += group.seconds[part]
        axes.text(left + 0.01 * most, n + 0.1, f"{left:.3g} s", va="center", fontsize=medium.small)
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


Make = Callable[..., Figure | None]
"""Makes a figure for the `medium` that it is given."""


def draw(make: Make, name: str, title: str) -> Drawn | None:
    """A figure, made for each medium: for the page as inline SVG, its legend left to the page; for a paper, and slides,
    as one picture in three formats. None if there is nothing to draw."""
    page, paper = make(medium=PAGE), make(medium=PAPER)
    if page is None or paper is None:
        return None
    made = {"Title": title, "Creator": DRAWN_BY}
    files = {
        "png": saved(paper, medium=PAPER, format="png", dpi=300, facecolor="white", metadata={"Software": DRAWN_BY}),
        "svg": saved(paper, medium=PAPER, format="svg", metadata={**made, "Date": None}),
        "pdf": saved(paper, medium=PAPER, format="pdf", metadata={**made, "CreationDate": None}),
    }
    if page.legends:
        width, height = page.get_size_inches()
        page.set_size_inches(width, height - _legend_height([t.get_text() for t in page.legends[0].texts], PAGE))
        page.legends.clear()
    svg = saved(page, medium=PAGE, format="svg", transparent=True, metadata={"Date": None})
    return Drawn(name, title, inline(svg.decode(), name, title), files)


@styled
def saved(figure: Figure, *, medium: Medium, **options: Any) -> bytes:
    """The file that `savefig` makes of a figure with these options, in the style of its medium. The first one lays the
    figure out, which takes as long as drawing it."""
    file = io.BytesIO()
    figure.savefig(file, **options)
    figure.set_layout_engine("none")
    return file.getvalue()


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


def _figure(medium: Medium, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(medium.width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, handles: Sequence[Line2D], medium: Medium, columns: int = 1) -> None:
    """Below the axes, in a figure made higher by what that takes."""
    width, height = figure.get_size_inches()
    rows = -(-len(handles) // columns)  # a column is filled before the next one begins
    labels = [str(handle.get_label()) for handle in handles]
    most = max(_legend_height(labels[n : n + rows], medium) for n in range(0, len(labels), rows))
    figure.set_size_inches(width, height + most)
    where: dict[str, Any] = {"loc": "outside lower left", "ncols": columns}
    figure.legend(handles=handles, frameon=False, fontsize=medium.small, handlelength=3, **where)


def _legend_height(labels: Sequence[str], medium: Medium) -> float:
    return (0.12 + sum(0.19 + 0.15 * label.count("\n") for label in labels)) * medium.row


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


def _wrapped(text: str, medium: Medium) -> str:
    """A method's name in lines that fit into a panel, broken between settings: its end is often all that
    tells it from another."""
    whole = "\xa0· ".join(part.replace(" ", "\xa0") for part in text.split(" · "))
    return textwrap.fill(whole, medium.longest, break_on_hyphens=False).replace("\xa0", " ")


def _with_seeds(lines: Sequence[tuple[Group, Curve]], medium: Medium) -> str:
    """A method's name and of how many seeds its lines are the means; thin lines show them all."""
    seeds, counts = max(len(line.seeds) for _, line in lines), [len(line.seeds) - len(line.short) for _, line in lines]
    counted = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    counted += f" of {seeds}" if max(counts) < seeds else ""
    return _wrapped(f"{lines[0][0].method} · {counted} seed{'s' if seeds > 1 else ''}", medium)
