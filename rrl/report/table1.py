"""The paper's table 1: scores after so many environment steps, ours beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from rrl.report.groups import Group, Report, differing, seed_of
from rrl.report.numbers import Scores, measurements, short
from rrl.report.tables import NONE, Cell, Table, number, plus_minus, together


@dataclass(frozen=True)
class Published:
    """The published table, and how far to trust it: `rrl/data/published/table1.json`."""

    label: str
    source: str
    columns: Mapping[str, Mapping[str, str | list[str]]]
    """The paper's columns in its order, and what labels or settings (or one of which) a method of ours has that stands
    in one."""
    methods: Sequence[str]
    """Columns whose numbers are known."""
    budgets: Sequence[int]
    """Environment steps, in the paper's order."""
    scores: Mapping[tuple[str, int, str], tuple[float, float]]
    """(task, budget, column) -> (mean, std)."""


@cache
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
    budgets = [int(budget) for budget in facts["scores"]]
    return Published(facts["label"], facts["source"], facts["columns"], facts["methods"], budgets, scores)


def column(group: Group) -> str:
    """The method's column in the paper's table; empty if it has none there."""
    run = group.runs[0]
    facts = {**run.params, **run.labels}

    def has(name: str, wanted: str | list[str]) -> bool:
        return facts.get(name) in (wanted if isinstance(wanted, list) else [wanted])

    columns = published().columns.items()
    return next((name for name, wanted in columns if all(has(*each) for each in wanted.items())), "")


def in_order(report: Report) -> list[list[Group]]:
    """The groups of each method, in the paper's order, others after."""
    order = ["", *published().columns]
    return sorted(report.methods.values(), key=lambda groups: order.index(column(groups[0])) or len(order))


def at_budget(group: Group, budget: int) -> Scores:
    """The score of each seed's last evaluation at or before `budget` environment steps, after training began;
    without the seeds that did not get so far."""
    metric = group.score.metric("eval")
    by_seed = {}
    for run in group.runs:
        points = [point for point in measurements(run, metric) if 0 < point.step <= budget]
        if points and run.steps >= budget:
            by_seed[seed_of(run)] = points[-1]
    return Scores(group, metric, by_seed)


def table1(report: Report) -> Table:
    """Scores by budget and task, a column for each method of these runs and, where there are any for their tasks,
    for each published one."""
    paper, methods = published(), in_order(report)
    beside = [m for m in paper.methods if any((t, b, m) in paper.scores for t in report.tasks for b in paper.budgets)]
    rows = []
    for budget in paper.budgets:
        for task in report.tasks:
            row = [Cell(together(f"{short(budget)} steps")), Cell(task)]
            row += [_cell([group for group in groups if group.task == task], budget, report) for groups in methods]
            known = [paper.scores.get((task, budget, method)) for method in beside]
            rows.append([*row, *(number(plus_minus(*k) if k else NONE) for k in known)])
    names = [_heading(groups[0]) for groups in methods]
    return Table(["budget", "task", *names, *(f"published: {method}" for method in beside)], rows)


def _heading(group: Group) -> str:
    name = column(group)
    return f"{name} ({group.method})" if name else group.method


def _cell(groups: Sequence[Group], budget: int, report: Report) -> Cell:
    """A method on a task, which is one group at most."""
    if not groups:
        return number(NONE, "no runs")
    (group,) = groups
    scores = at_budget(group, budget)
    runs, counted = len(group.runs), len(scores.by_seed)
    seeds = f"{counted} seed{'' if counted == 1 else 's'}"
    words = [seeds if counted == runs else f"{counted} of {runs} seed{'' if runs == 1 else 's'}"]
    early = sorted({point.step for point in scores.by_seed.values() if point.step < budget})
    words += [f"evaluated at {', '.join(map(short, early))}"] if early else []
    return number(plus_minus(scores.mean, scores.std), "; ".join([*words, *_own_settings(group, report)]))


def _own_settings(group: Group, report: Report) -> list[str]:
    """The agent's settings that not all groups of its method share, but for the column's: `batch 256`."""
    alike = [g for g in report.groups if (g.encoder, g.agent) == (group.encoder, group.agent)]
    names = {name: name.removeprefix("agent.") for name in differing(alike) if name.startswith("agent.")}
    in_heading = {name.removeprefix("agent.") for name, _ in group.extras}
    return [f"{short} {group.params.get(name, NONE)}" for name, short in names.items() if short not in in_heading]
