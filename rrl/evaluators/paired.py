"""The same episodes under several conditions: numbers, words, a chart and a table of what came of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.evaluators.outcomes import Outcome
from rrl.rollout.data import Rollout
from rrl.score import Score
from rrl.store import files

NOMINAL = "nominal"
"""The condition without any change, which the others are compared with. It is tried first."""
LEVEL = 6
"""Conditions whose names fit side by side; those of more are slanted."""


class Paired:
    """What became of one policy under each condition that was tried so far."""

    def __init__(self, space: str, score: Score) -> None:
        """Its numbers' names begin with `space`."""
        self._space, self._score = space, score
        self._outcomes: dict[str, Outcome] = {}
        self._lines: list[dict[str, Any]] = []

    def add(self, condition: str, rollout: Rollout, **told: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Take in a condition's episodes, of each of which the table tells these texts too; its numbers: the score
        with its interval, and how it differs from the nominal one."""
        self._outcomes[condition] = outcome = Outcome.of(rollout, self._score)
        for i, (value, returned) in enumerate(zip(outcome.values, rollout.returns(), strict=True)):
            line = {"condition": condition, "episode": i, self._score.name: value, "return": returned}
            self._lines.append(line | {name: texts[i] for name, texts in told.items()})
        return self._numbers(condition)

    def _numbers(self, condition: str) -> Iterator[tuple[str, float]]:
        start, outcome = f"{self._space}/{condition.replace(' ', '_')}", self._outcomes[condition]
        yield f"{start}/{self._score.name}", outcome.mean
        yield f"{start}/{self._score.name}_low", outcome.interval[0]
        yield f"{start}/{self._score.name}_high", outcome.interval[1]
        if condition != NOMINAL:
            ends = zip(("", "_low", "_high"), outcome.minus(self._outcomes[NOMINAL]), strict=True)
            yield from ((f"{start}/change{end}", value) for end, value in ends)

    def in_words(self, condition: str) -> str:
        """A line for people."""
        outcome = self._outcomes[condition]
        words = f"{condition}: {self._score.name} {outcome}{self._score.unit}"
        if condition == NOMINAL:
            return f"{words} of {len(outcome.values)} episodes"
        change, low, high = outcome.minus(self._outcomes[NOMINAL])
        return f"{words}, {change:+.0f} ({low:+.0f} to {high:+.0f}) against nominal"

    def write(self, stem: Path, title: str) -> None:
        """`stem` with .csv (a line for each episode), .png and .svg (`chart`)."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        out = io.StringIO()
        writer = csv.DictWriter(out, list(self._lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._lines)
        files.write_text(stem.with_suffix(".csv"), out.getvalue())
        chart(self._outcomes, title, stem)


def chart(outcomes: Mapping[str, Outcome], title: str, stem: Path) -> None:
    """Bars of the scores with their 95 % intervals, and the paired differences under them: a .png and an .svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, nominal = list(outcomes), outcomes[NOMINAL]
    figure = Figure(figsize=(1.5 + 1.1 * len(names), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for x, (condition, outcome) in enumerate(outcomes.items()):
        low, high = outcome.interval
        colour = "0.6" if condition == NOMINAL else "tab:blue"
        ends = [[max(outcome.mean - low, 0)], [max(high - outcome.mean, 0)]]
        axes.bar(x, outcome.mean, yerr=ends, color=colour, capsize=4)
        if condition != NOMINAL:
            change, least, most = outcome.minus(nominal)
            names[x] += f"\n{change:+.0f} ({least:+.0f} to {most:+.0f})"
    many = len(names) > LEVEL
    axes.set_xticks(range(len(names)), names, rotation=30 if many else 0, ha="right" if many else "center", fontsize=8)
    axes.set_ylabel(nominal.score.axis)
    if nominal.score.counted:
        axes.set_ylim(0, 105)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(f"{title}\n{len(nominal.values)} episodes each, the same; below: paired change, 95 %", fontsize=9)
    for suffix in ("png", "svg"):
        with files.writing(stem.with_suffix(f".{suffix}")) as file:
            figure.savefig(
                file, format=suffix, bbox_inches="tight"
            )  # slanted names reach farther than the layout thinks
