"""What a task is judged by: success under a goal flag, or the return."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Space = Literal["train", "eval", "final", "summary"]


@dataclass(frozen=True)
class Score:
    """The headline number of a task: the printed line, the plots, reports, sweeps and verdicts ask it."""

    name: str
    """The last part of its metrics' names, such as `success` of `train/success`: a goal flag, or `return`."""
    counted: bool
    """Is it a share of episodes, in percent? Then episodes are wins or not and intervals are Wilson's."""
    steps: int = 0
    """A counted episode succeeds when its flag was up in more than this many steps (paper, section 5)."""

    def metric(self, space: Space, kind: str = "") -> str:
        """`train/success`; with a kind `summary/best_success`, `eval/success_sampled` (`sampled` goes last)."""
        if kind == "sampled":
            return f"{space}/{self.name}_sampled"
        return f"{space}/{kind}_{self.name}" if kind else f"{space}/{self.name}"

    def kinds(self, space: Space, metrics: Iterable[str]) -> list[str]:
        """Kinds of it that are among these metrics: `blind` of `final/blind_success`. Sorted, `sampled` left out."""
        matches = (re.fullmatch(rf"{space}/(\w+)_{self.name}", metric) for metric in set(metrics))
        return sorted(match[1] for match in matches if match)

    @property
    def unit(self) -> str:
        """` %`, or nothing."""
        return " %" if self.counted else ""

    @property
    def axis(self) -> str:
        """How an axis of it is called: `success (%)`, `return`."""
        return f"{self.name} (%)" if self.counted else self.name

    def text(self, value: float) -> str:
        """`95.0 %` or `812.3`."""
        return f"{value:.1f}{self.unit}"


RETURN = Score("return", counted=False)
"""The score of a task without a success test: the undiscounted sum of an episode's rewards."""


def success(flag: str, steps: int) -> Score:
    """The score of a task with a goal flag that must be up in more than `steps` steps of an episode."""
    return Score(flag, counted=True, steps=steps)
