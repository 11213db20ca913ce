"""What came of the same episodes under different conditions: scores with intervals, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rrl.rollout.data import Rollout
from rrl.score import Score
from rrl.statistics import difference, paired_proportions, wilson


@dataclass(frozen=True)
class Outcome:
    """How some episodes ended."""

    values: list[float]
    """Of each episode: success (1 or 0), or return."""
    score: Score

    @classmethod
    def of(cls, rollout: Rollout, score: Score) -> Outcome:
        """Of a rollout's episodes."""
        values = rollout.success(score.name) if score.counted else rollout.returns()
        return cls([float(value) for value in values], score)

    @property
    def mean(self) -> float:
        """Success in percent, or the mean return."""
        return float(np.mean(self.values)) * self._unit

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: Wilson's of a success (which takes all episodes for independent), of a return 1.96 standard errors."""
        if self.score.counted:
            low, high = wilson(int(sum(self.values)), len(self.values))
            return 100.0 * low, 100.0 * high
        half = 1.96 * float(np.std(self.values)) / len(self.values) ** 0.5
        return self.mean - half, self.mean + half

    def minus(self, other: Outcome) -> tuple[float, float, float]:
        """(difference of the means, low, high): 95 %, of the same episodes in the same order, in the score's unit."""
        if self.score.counted:
            found = paired_proportions(self.values, other.values)
        else:
            found = difference(self.values, other.values, paired=True)
        low, high = (self._unit * value for value in found[1:])
        return self._unit * found[0], low, high

    @property
    def _unit(self) -> float:
        return 100.0 if self.score.counted else 1.0

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.0f} ({low:.0f} to {high:.0f})"


def concatenated(parts: Sequence[Outcome]) -> Outcome:
    """The episodes of all of them, one after another."""
    return Outcome([value for part in parts for value in part.values], parts[0].score)
