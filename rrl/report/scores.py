"""Numbers of tasks that have returns and no success rate: the paper's table 1, and where groups ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from rrl.report.groups import Group, Report, seed_of
from rrl.report.numbers import Effort, effort, last
from rrl.store.results import Result

FINAL, EVAL = "final/return", "eval/return"
BUDGETS = (500_000, 100_000)  # environment steps, in the paper's order
PAPER = ("RRL_SAC", "RAD", "Fixed RAD encoder", "CURL", "SAC+AE", "State SAC")
"""Columns of the paper's table 1."""
# (agent, encoder) of them; RRL_SAC's encoder is any that was trained on ImageNet.
COMPONENTS = {
    ("RAD", "PixelCNN"): "RAD",
    ("RAD", "FixedEncoder (PixelCNN)"): "Fixed RAD encoder",
    ("CURL", "ContrastiveCNN"): "CURL",
    ("SACAE", "AutoencoderCNN"): "SAC+AE",
    ("SAC", "State"): "State SAC",
}


def paper_name(group: Group) -> str:
    """The method's column in the paper's table 1; empty if it has none there."""
    imagenet = group.encoder in ("MobileNetV2", "ResNet18", "ResNet34", "ResNet50")
    if group.agent == "SAC" and imagenet:
        return "RRL_SAC"
    return COMPONENTS.get((group.agent, group.encoder), "")


def methods(report: Report) -> list[list[Group]]:
    """The groups of each method, in the paper's order, others after."""
    order = {name: n for n, name in enumerate(PAPER)}
    return sorted(report.methods.values(), key=lambda groups: order.get(paper_name(groups[0]), len(order)))


@dataclass(frozen=True)
class Summary:
    """Scores of a group's seeds."""

    group: Group
    values: Mapping[int, float]
    """By seed."""
    steps: Mapping[int, int]
    """Environment steps of each seed's evaluation."""

    @property
    def mean(self) -> float | None:
        """Over seeds; None without any."""
        return float(np.mean(list(self.values.values()))) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (of the sample: n - 1); None of fewer than two."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None


def at_budget(group: Group, budget: int) -> Summary:
    """`eval/return` of each seed's last evaluation at or before `budget` environment steps, after training
    began; without the seeds that did not get so far."""
    found = {seed_of(run): point for run in group.runs if (point := _evaluated(run, budget))}
    return Summary(group, {s: value for s, (_, value) in found.items()}, {s: at for s, (at, _) in found.items()})


def _evaluated(run: Result, budget: int) -> tuple[int, float] | None:
    if run.steps < budget:
        return None
    points = [point for point in zip(*run.series(EVAL), strict=True) if 0 < point[0] <= budget]
    return points[-1] if points else None


@dataclass(frozen=True)
class Ended:
    """Where a group ended."""

    source: str
    """Metric of the scores: `final/return`, else `eval/return`; empty without evaluations."""
    scores: Summary
    episodes: int
    """Evaluation episodes of all seeds."""
    effort: Effort


def ended(group: Group) -> Ended:
    """Of the final evaluation, or else of the last one; runs without a final evaluation are left out unless
    none has one."""
    source = next((m for m in (FINAL, EVAL) if any(last(run, m) for run in group.runs)), "")
    found = {seed_of(run): m for run in group.runs if (m := last(run, source))}
    steps = {seed_of(run): run.series(source)[0][-1] for run in group.runs if run.series(source)[0]}
    scores = Summary(group, {seed: m.value for seed, m in found.items()}, steps)
    return Ended(source, scores, sum(m.episodes for m in found.values()), effort(group))


@dataclass(frozen=True)
class Published:
    """The published table, and how far to trust it."""

    label: str
    source: str
    methods: Sequence[str]
    scores: Mapping[tuple[str, int, str], tuple[float, float]]
    """(task, budget, method) -> (mean, std)."""


def published() -> Published:
    """What comes with the package."""
    path = Path(str(files("rrl"))) / "data" / "published" / "table1.json"
    facts = json.loads(path.read_text())
    scores = {
        (task, int(budget), method): (float(mean), float(std))
        for budget, tasks in facts["scores"].items()
        for task, row in tasks.items()
        for method, (mean, std) in zip(facts["methods"], row, strict=True)
    }
    return Published(facts["label"], facts["source"], facts["methods"], scores)
