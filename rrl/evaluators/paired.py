"""The same episodes under several conditions: numbers, words, a chart and tables of what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.evaluators.outcomes import Outcome
from rrl.rollout.data import Rollout
from rrl.score import Score
from rrl.store import files, tables

NOMINAL = "nominal"
"""The condition without any change, which the others are compared with. It is tried first."""
LEVEL = 6
"""Conditions whose names fit side by side; those of more are slanted."""


class Paired:
    """What became of one policy under each condition that was tried so far."""

    def __init__(self, space: str, score: Score, nominal: str = NOMINAL) -> None:
        """Its numbers' names begin with `space`; people read `nominal` for the condition of that name."""
        self._space, self._score, self._nominal = space, score, nominal
        self._outcomes: dict[str, Outcome] = {}
        self._lines: list[dict[str, Any]] = []
        self._about: dict[str, Mapping[str, Any]] = {}

    def add(
        self, condition: str, rollout: Rollout, about: Mapping[str, Any] | None = None, **told: Sequence[str]
    ) -> Iterator[tuple[str, float]]:
        """Take in a condition's episodes, of each of which the table tells these texts too; its numbers: the score
        with its interval, and how it differs from the nominal one. `about`: what the table of changes says of the
        condition beside its name."""
        self._outcomes[condition] = outcome = Outcome.of(rollout, self._score)
        self._about[condition] = about or {}
        for i, (value, returned) in enumerate(zip(outcome.values, rollout.returns(), strict=True)):
            line = {"condition": self._called(condition), "episode": i, self._score.name: value, "return": returned}
            self._lines.append(line | {name: texts[i] for name, texts in told.items()})
        return self._numbers(condition)

    def _called(self, condition: str) -> str:
        """Its name for people."""
        return self._nominal if condition == NOMINAL else condition

    def _numbers(self, condition: str) -> Iterator[tuple[str, float]]:
        start = f"{self._space}/{condition.replace(' ', '_')}"
        yield from ((f"{start}/{name}", value) for name, value in self._found(condition).items())

    def _found(self, condition: str) -> dict[str, float]:
        """The score with its interval, and, but of the nominal one, the paired change with its interval."""
        outcome, ends = self._outcomes[condition], ("", "_low", "_high")
        values = (outcome.mean, *outcome.interval)
        found = {f"{self._score.name}{end}": value for end, value in zip(ends, values, strict=True)}
        if condition != NOMINAL:
            changes = outcome.minus(self._outcomes[NOMINAL])
            found |= {f"change{end}": value for end, value in zip(ends, changes, strict=True)}
        return found

    def in_words(self, condition: str) -> str:
        """A line for people."""
        outcome = self._outcomes[condition]
        words = f"{self._called(condition)}: {self._score.name} {outcome}{self._score.unit}"
        if condition == NOMINAL:
            return f"{words} of {len(outcome.values)} episodes"
        return f"{words}, {self._change(condition)} against {self._nominal.partition(' (')[0]}"

    def _change(self, condition: str) -> str:
        if condition == NOMINAL:
            return ""
        change, low, high = self._outcomes[condition].minus(self._outcomes[NOMINAL])
        return f"{change:+.0f} ({low:+.0f} to {high:+.0f})"

    def table(self) -> str:
        """All conditions, for people: a line for each, in columns."""
        rows = [("condition", f"{self._score.name}{self._score.unit}", "paired change, 95 %")]
        rows += [(self._called(name), str(outcome), self._change(name)) for name, outcome in self._outcomes.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def write(self, stem: Path, title: str) -> None:
        """`stem` with .csv (a line for each episode), _drops.csv (one for each condition: score and paired change, with
        95 % intervals), .png and .svg (`chart`)."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        changes = [
            {"condition": self._called(name), **self._about[name], "episodes": len(outcome.values), **self._found(name)}
            for name, outcome in self._outcomes.items()
        ]
        for end, lines in ((".csv", self._lines), ("_drops.csv", changes)):
            # The last line's columns: what an earlier one lacks (the nominal condition: a change) stays empty.
            files.write_text(stem.with_name(stem.name + end), tables.csv_of(list(lines[-1]), lines))
        chart({self._called(name): outcome for name, outcome in self._outcomes.items()}, title, stem)


def chart(outcomes: Mapping[str, Outcome], title: str, stem: Path) -> None:
    """Bars of the scores with their 95 % intervals, and under them the paired differences from the first one: a .png
    and an .svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name.replace(" (", "\n(") for name in outcomes]
    nominal = next(iter(outcomes.values()))
    figure = Figure(figsize=(1.5 + 1.1 * len(names), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for x, outcome in enumerate(outcomes.values()):
        low, high = outcome.interval
        colour = "tab:blue" if x else "0.6"
        ends = [[max(outcome.mean - low, 0)], [max(high - outcome.mean, 0)]]
        axes.bar(x, outcome.mean, yerr=ends, color=colour, capsize=4)
        if x:
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
