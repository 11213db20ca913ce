"""How runs of ours compare with published curves at equal samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import t as student

from rrl.report import table1
from rrl.report.groups import WITHIN, Group, collect
from rrl.reproduce.published import Curves
from rrl.score import Score
from rrl.statistics import wilson
from rrl.store.results import Result

Word = Literal["within", "below", "above"]
UPDATES = 5
"""Our value is the mean over this many updates (fewer if there are fewer): one has 200 episodes of noise."""


@dataclass(frozen=True)
class Value:
    """A score with its 95 % interval."""

    score: Score
    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.score.text(self.mean)} ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True)
class Verdict:
    """One comparison at equal samples."""

    steps: int
    """Environment steps: the last that all of our runs reached."""
    ours: Value
    theirs: Value
    difference: tuple[float, float, float]
    """(ours - theirs, and its 95 % interval), in points if they are counted."""
    word: Word
    """`within`: the interval of the difference holds 0."""
    differences: tuple[str, ...]
    """What is not as in the published runs; empty: comparable."""
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """As text for people, the most important first."""
        text = [
            "NOT COMPARABLE: " + "; ".join(self.differences)
            if self.differences
            else "comparable: no listed condition differs",
            f"at {self.steps:,} environment steps ours is {_in_words(self.ours, self.theirs, 'the published curve')}",
        ]
        return [*text, *(f"note: {note}" for note in self.notes)]


def _in_words(ours: Value, theirs: Value, published: str) -> str:
    (mean, low, high), word = _compared(ours, theirs)
    sides = {"within": "within the interval of", "below": "below", "above": "above"}
    unit = " points" if ours.score.counted else ""
    return (
        f"{sides[word]} {published}: {ours} against {theirs}, difference {mean:+.1f}{unit} ({low:+.1f} to {high:+.1f})"
    )


def _compared(ours: Value, theirs: Value) -> tuple[tuple[float, float, float], Word]:
    """(ours - theirs, and its 95 % interval; the word for it)."""
    mean = ours.mean - theirs.mean
    low = mean - math.hypot(ours.mean - ours.low, theirs.high - theirs.mean)
    high = mean + math.hypot(ours.high - ours.mean, theirs.mean - theirs.low)
    return (mean, low, high), "within" if low <= 0 <= high else "above" if low > 0 else "below"


def judge(runs: Sequence[Result], curves: Curves) -> Verdict | None:
    """Compare runs that differ in seeds alone; None without updates that the published curves cover."""
    reached = [steps[-1] for run in runs if (steps := run.series(curves.metric)[0])]
    first, last = curves.span
    if len(reached) < len(runs) or not reached or min(reached) < first:
        return None
    upto = min(min(reached), last)
    ours, steps = _ours(runs, curves, first, upto)
    theirs, notes = _between_points(_theirs(curves, steps), curves, upto)
    difference, word = _compared(ours, theirs)
    if len(runs) == 1:
        notes.append("one seed: our interval covers the choice of episodes, not of a seed")
    elif len(runs) < 3:
        notes.append(f"{len(runs)} seeds are too few to know how much seeds differ")
    if any(step != reached[0] for step in reached):
        notes.append("our seeds have not reached the same number of steps; compared where all have been")
    differences = dict.fromkeys(text for run in runs for text in curves.differences(run))
    return Verdict(upto, ours, theirs, difference, word, tuple(differences), tuple(notes))


def judge_scores(runs: Sequence[Result], shipped: Sequence[Mapping[str, str]]) -> list[str]:
    """How runs of the paper's table of scores compare with the published ones, as text for people. `shipped` are the
    parameters of the shipped runs: what a run has otherwise forbids a comparison."""
    paper, lines = table1.published(), []
    for group in collect(runs).groups:
        column = table1.column(group)
        for budget in paper.budgets:
            known = paper.scores.get((group.task, budget, column))
            if known is None:
                continue
            name, reached = f"{column} on {group.task} at {budget:,} environment steps", table1.at_budget(group, budget)
            if not reached.by_seed:
                lines.append(f"NO VERDICT: {name}: no run of ours has been evaluated there")
                continue
            scores = [point.value for point in reached.by_seed.values()]
            ours = _value(group.score, scores, sum(point.episodes for point in reached.by_seed.values()))
            mean, std = known
            theirs = Value(group.score, mean, mean - std, mean + std, 0)
            differences = _otherwise(group, shipped)
            lines.append(f"NOT COMPARABLE: {'; '.join(differences)}" if differences else "as the shipped file")
            lines.append(f"{name} ours is {_in_words(ours, theirs, 'the published score')}")
            if len(scores) < 3:
                lines.append(f"note: {_seeds(len(scores))} too few to know how much seeds differ")
    if lines:
        lines.append(f"note: their interval is one standard deviation over seeds; {paper.label}")
    return lines


def _otherwise(group: Group, shipped: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings of a method that are not as in the shipped run of the same agent and encoder, in words; what is
    chosen automatically, evaluators and the length left out."""
    ours = group.params
    theirs = next((p for p in shipped if all(p.get(part) == ours.get(part) for part in ("agent", "encoder"))), None)
    if theirs is None:
        return ["no shipped file has this agent and encoder"]
    own = {name: value for name, value in theirs.items() if value not in ("auto", "None") and name not in WITHIN}
    own = {name: value for name, value in own.items() if not name.startswith("evaluators") and name != "iterations"}
    return [f"{name} {ours[name]} (shipped {own[name]})" for name in own if ours.get(name, own[name]) != own[name]]


def _seeds(count: int) -> str:
    return "one seed is" if count == 1 else f"{count} seeds are"


def _ours(runs: Sequence[Result], curves: Curves, first: int, upto: int) -> tuple[Value, list[int]]:
    """Our value, and the steps of the updates that it is of."""
    values, episodes = [], 0
    used: set[int] = set()
    for run in runs:
        steps, scores = run.series(curves.metric)
        chosen = [n for n, step in enumerate(steps) if first <= step <= upto][-UPDATES:]
        counts = run.series(f"{curves.space}/episodes")[1]
        episodes += int(sum(counts[n] for n in chosen))
        values.append(float(np.mean([scores[n] for n in chosen])))
        used |= {steps[n] for n in chosen}
    return _value(curves.score, values, episodes), sorted(used)


def _theirs(curves: Curves, steps: Sequence[int]) -> Value:
    """The authors' curve over the same updates as ours, not at their end: a rising curve would flatter them."""
    points = [curves.at(step) for step in steps]
    seeds = set.intersection(*map(set, points))
    means = [float(np.mean([scores[seed] for scores in points])) for seed in sorted(seeds)]
    return _value(curves.score, means, curves.episodes * len(means))


def _between_points(theirs: Value, curves: Curves, steps: int) -> tuple[Value, list[str]]:
    """Between published points their curve is not known: an interval that holds both, and a note that says so."""
    before, after = curves.around(steps)
    if not before < steps < after:
        return theirs, []
    ends = [float(np.mean(list(curves.at(point).values()))) for point in (before, after)]
    note = (
        f"the published points nearest to {steps:,} steps are at {before:,} ({curves.score.text(ends[0])}) and "
        f"{after:,} ({curves.score.text(ends[1])}): between them their curve is not known; their interval holds both"
    )
    return replace(theirs, low=min(theirs.low, *ends), high=max(theirs.high, *ends)), [note]


def _value(score: Score, values: Sequence[float], episodes: int) -> Value:
    """Mean over seeds. The interval of a counted score is Wilson's over the pooled episodes (the choice of
    episodes); with 3 seeds or more, Student's over seeds (the choice of seeds) if that is wider."""
    mean = float(np.mean(values))
    low, high, least, most = mean, mean, -math.inf, math.inf
    if score.counted:
        low, high = (100 * end for end in wilson(round(mean / 100 * episodes), episodes))
        least, most = 0.0, 100.0
    if len(values) >= 3:
        half = float(student.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
        low, high = max(least, min(low, mean - half)), min(most, max(high, mean + half))
    return Value(score, mean, min(low, mean), max(high, mean), len(values))
