"""How runs of ours compare with published curves at equal samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import t as student

from rrl.reproduce.published import Curves
from rrl.statistics import wilson
from rrl.store.results import Result

UPDATES = 5
"""Our value is the mean over this many updates (fewer if there are fewer): one has 200 episodes of noise."""
THEIR_EPISODES = {"pen": 400}
"""Training episodes behind each of the authors' numbers; 200 for the other tasks."""


@dataclass(frozen=True)
class Value:
    """A success rate in percent with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} % ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True)
class Verdict:
    """One comparison at equal samples."""

    steps: int
    """Environment steps: the last that all of our runs reached."""
    ours: Value
    theirs: Value
    difference: tuple[float, float, float]
    """(ours - theirs, and its 95 % interval), in points."""
    word: Literal["within", "below", "above"]
    """`within`: the interval of the difference holds 0."""
    differences: tuple[str, ...]
    """What is not as in the published runs; empty: comparable."""
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """As text for people, the most important first."""
        mean, low, high = self.difference
        sides = {"within": "within the interval of", "below": "below", "above": "above"}
        text = [
            f"at {self.steps:,} environment steps ours is {sides[self.word]} the published curve: "
            f"{self.ours} against {self.theirs}, difference {mean:+.1f} points ({low:+.1f} to {high:+.1f})"
        ]
        if self.differences:
            text.insert(0, "NOT COMPARABLE: " + "; ".join(self.differences))
        else:
            text.insert(0, "comparable: no listed condition differs")
        return [*text, *(f"note: {note}" for note in self.notes)]


def judge(runs: Sequence[Result], curves: Curves) -> Verdict | None:
    """Compare runs that differ in seeds alone; None without updates that the published curves cover."""
    series = [run.series(curves.metric) for run in runs]
    reached = [steps[-1] for steps, _ in series if steps]
    first, last = curves.span
    if len(reached) < len(runs) or not reached or min(reached) < first:
        return None
    upto = min(min(reached), last)
    values, episodes = [], 0
    at: set[int] = set()
    for run, (steps, percents) in zip(runs, series, strict=True):
        chosen = [n for n, step in enumerate(steps) if first <= step <= upto][-UPDATES:]
        counts = run.series("train/episodes")[1]
        episodes += int(sum(counts[n] for n in chosen))
        values.append(float(np.mean([percents[n] for n in chosen])))
        at |= {steps[n] for n in chosen}
    ours = _value(values, episodes)
    # The authors' curve over the same updates as ours, not at their end: a rising curve would flatter them.
    found = [curves.at(step) for step in sorted(at)]
    seeds = set.intersection(*(set(each) for each in found))
    means = [float(np.mean([each[seed] for each in found])) for seed in sorted(seeds)]
    theirs = _value(means, THEIR_EPISODES.get(curves.task, 200) * len(means))
    notes = []
    before, after = curves.around(upto)
    if before < upto < after:
        ends = [float(np.mean(list(curves.at(point).values()))) for point in (before, after)]
        theirs = replace(theirs, low=min(theirs.low, *ends), high=max(theirs.high, *ends))
        notes.append(
            f"the published points nearest to {upto:,} steps are at {before:,} ({ends[0]:.1f} %) and "
            f"{after:,} ({ends[1]:.1f} %): between them their curve is not known; their interval holds both"
        )
    mean = ours.mean - theirs.mean
    low = mean - math.hypot(ours.mean - ours.low, theirs.high - theirs.mean)
    high = mean + math.hypot(ours.high - ours.mean, theirs.mean - theirs.low)
    word: Literal["within", "below", "above"] = "within" if low <= 0 <= high else "above" if low > 0 else "below"
    if len(runs) == 1:
        notes.append("one seed: our interval covers the choice of episodes, not of a seed")
    elif len(runs) < 3:
        notes.append(f"{len(runs)} seeds are too few to know how much seeds differ")
    if any(step != reached[0] for step in reached):
        notes.append("our seeds have not reached the same number of steps; compared where all have been")
    differences = dict.fromkeys(text for run in runs for text in curves.differences(run))
    return Verdict(upto, ours, theirs, (mean, low, high), word, tuple(differences), tuple(notes))


def _value(values: Sequence[float], episodes: int) -> Value:
    """Mean over seeds. The interval is Wilson's over the pooled episodes (the choice of episodes); with 3
    seeds or more, Student's over seeds (the choice of seeds) if that is wider."""
    mean = float(np.mean(values))
    low, high = (100 * end for end in wilson(round(mean / 100 * episodes), episodes))
    if len(values) >= 3:
        half = float(student.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
        low, high = max(0.0, min(low, mean - half)), min(100.0, max(high, mean + half))
    return Value(mean, min(low, mean), max(high, mean), len(values))
