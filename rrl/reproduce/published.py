"""Published curves that come with the package (`rrl/data/published/fig*.json`), and their conditions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rrl.registry import UserError
from rrl.report.figures import Published
from rrl.report.groups import Report
from rrl.score import Score, Space
from rrl.store.results import Result

FOLDER = Path(str(resources.files("rrl"))) / "data" / "published"


@dataclass(frozen=True)
class Curves:
    """One task of a published figure."""

    figure: str
    title: str
    label: str
    """Short, for legends."""
    source: str
    """Where the numbers come from, in a sentence."""
    task: str
    space: Space
    score: Score
    """What the numbers are, of which episodes: `train`, sampled actions."""
    episodes: int
    """Behind each number."""
    seeds: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]]
    """Seed -> (environment steps, scores); a seed that stopped early has fewer points."""
    conditions: Mapping[str, Mapping[str, Any]]

    @property
    def metric(self) -> str:
        """What runs of ours must have logged."""
        return self.score.metric(self.space)

    def at(self, steps: int) -> dict[str, float]:
        """Each seed's value after so many steps, on straight lines between its published points; seeds whose
        points don't reach so far (or begin later) are left out."""
        return {s: float(np.interp(steps, x, y)) for s, (x, y) in self.seeds.items() if x[0] <= steps <= x[-1]}

    def around(self, steps: int) -> tuple[int, int]:
        """The published points before and after (or at) so many steps, which lie within `span`."""
        points = sorted({x for xs, _ in self.seeds.values() for x in xs})
        return max(x for x in points if x <= steps), min(x for x in points if x >= steps)

    @property
    def span(self) -> tuple[int, int]:
        """First and last environment step of any seed."""
        return min(x[0] for x, _ in self.seeds.values()), max(x[-1] for x, _ in self.seeds.values())

    def drawn(self) -> Published:
        """What a report's figure shows of it: mean and range over seeds."""
        steps = sorted({x for xs, _ in self.seeds.values() for x in xs})
        values = [list(self.at(step).values()) for step in steps]
        return Published(
            label=self.label,
            task=self.task,
            steps=steps,
            mean=[sum(scores) / len(scores) for scores in values],
            low=[min(scores) for scores in values],
            high=[max(scores) for scores in values],
            space=self.space,
            score=self.score.name,
        )

    def differences(self, run: Result) -> list[str]:
        """What is not as it was in the published runs, in words; empty: comparable."""
        differences = []
        for name, condition in self.conditions.items():
            wanted = condition["value"]
            wanted = wanted[self.task] if isinstance(wanted, dict) else wanted
            where = run.tags if "tag" in condition else run.params
            ours = where.get(condition.get("tag") or condition["param"])
            if ours is None and "only of" in condition:
                continue  # another component, which has no such setting: said already
            if ours != wanted:
                differences.append(f"{name} {ours or 'unknown'} (theirs {wanted})")
        return differences


def load(figure: str, task: str) -> list[Curves]:
    """The published curves of a figure's task; none if none come with the package. UserError, with what there is, for a
    task that they lack."""
    facts = _facts(figure)
    if "samples" not in facts:  # a table, or nothing
        return []
    if task not in facts["tasks"]:
        raise UserError(f"{figure} has no task {task}; it is one of {', '.join(facts['tasks'])}")
    return [_curves(facts | more, task) for more in ({}, *facts.get("also", ()))]


def every(figure: str) -> list[Curves]:
    """The published curves of all tasks of a figure. UserError, with what there is, if none come with the package."""
    tasks = _facts(figure).get("tasks", ()) if figure in known() else ()
    if curves := [each for task in tasks for each in load(figure, task)]:
        return curves
    there = [name for name in known() if "samples" in _facts(name)]
    raise UserError(f"no curves of {figure} come with the package; there are those of {', '.join(there)}")


def known() -> list[str]:
    """Figures and tables of which anything comes with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def compared(curves: Sequence[Curves], report: Report) -> Iterator[str]:
    """A line for each group beside which one of them stands: what is not as in the published runs."""
    for each, group in ((each, group) for each in curves for group in report.groups):
        if each.drawn().beside(group):
            differences = "; ".join(each.differences(group.runs[0]))
            said = f"NOT COMPARABLE: {differences}" if differences else "comparable: no listed condition differs"
            yield f"{group.label} and {each.label}: {said}"


def label(figure: str) -> str:
    """What numbers of a figure come with the package, in a few words; empty: none."""
    return str(_facts(figure).get("label", ""))


def _facts(figure: str) -> dict[str, Any]:
    path = FOLDER / f"{figure}.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return facts


def _curves(facts: Mapping[str, Any], task: str) -> Curves:
    seeds = {
        seed: (tuple(facts["samples"][: len(values)]), tuple(map(float, values)))
        for seed, values in facts["tasks"][task].items()
    }
    named = {key: facts[key] for key in ("figure", "title", "label", "source", "space", "conditions")}
    score, episodes = Score(**facts["score"]), facts["episodes"][task]
    return Curves(task=task, score=score, episodes=episodes, seeds=seeds, **named)
