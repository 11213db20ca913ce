"""Tables of tasks that have returns and no success rate, as text in cells and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rrl.report import scores
from rrl.report.figures import short
from rrl.report.groups import Group, Report, differing
from rrl.report.scores import BUDGETS, Ended, Summary
from rrl.report.tables import NONE, Cell, Looks, Table, effort_cells, number, together

WORDS = {scores.FINAL: "final", scores.EVAL: "last", "": ""}


def plus_minus(mean: float | None, std: float | None) -> str:
    """`828 ± 27`, `828` without a deviation, or a dash; a decimal below 100."""
    if mean is None:
        return NONE
    digits = 0 if abs(mean) >= 100 else 1
    return together(f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}"))


def table1(report: Report) -> Table:
    """The paper's table 1 of the tasks without success: scores by budget and task, a column for each method
    and, where there are any for these tasks, for each published one."""
    methods, other = scores.methods(report), scores.published()
    beside = [m for m in other.methods if any((t, b, m) in other.scores for t in report.tasks for b in BUDGETS)]
    rows = []
    for budget in BUDGETS:
        for task in report.tasks:
            row = [Cell(together(f"{short(budget)} steps")), Cell(task)]
            for groups in methods:
                mine = [group for group in groups if group.task == task]
                row.append(
                    _score(scores.at_budget(mine[0], budget), budget, _own_settings(mine[0], report))
                    if mine
                    else number(NONE, "no runs")
                )
            known = [other.scores.get((task, budget, method)) for method in beside]
            rows.append([*row, *(number(plus_minus(*k) if k else NONE) for k in known)])
    names = [_column(groups[0]) for groups in methods]
    return Table(["budget", "task", *names, *(f"published: {method}" for method in beside)], rows)


def _column(group: Group) -> str:
    name = scores.paper_name(group)
    return f"{name} ({group.method})" if name else group.method


def _own_settings(group: Group, report: Report) -> list[str]:
    """The agent's settings that not all groups of its method share, but for the column's: `batch 256`."""
    alike = [g for g in report.groups if (g.encoder, g.agent) == (group.encoder, group.agent)]
    names = {name: name.removeprefix("agent.") for name in differing(alike) if name.startswith("agent.")}
    told = {name.removeprefix("agent.") for name, _ in group.extras}
    return [f"{short} {group.params.get(name, NONE)}" for name, short in names.items() if short not in told]


def _score(found: Summary, budget: int, settings: Sequence[str]) -> Cell:
    runs, counted = len(found.group.runs), len(found.values)
    seeds = f"{counted} seed{'' if counted == 1 else 's'}"
    words = [seeds if counted == runs else f"{counted} of {runs} seed{'' if runs == 1 else 's'}"]
    early = sorted({step for step in found.steps.values() if step < budget})
    words += [f"evaluated at {', '.join(map(short, early))}"] if early else []
    return number(plus_minus(found.mean, found.std), "; ".join([*words, *settings]))


def scores_csv(report: Report, path: Path) -> None:
    """Table 1 with all digits and each seed's value (`0=812.5 1=790.25`), published numbers below."""
    other = scores.published()
    head = "task,budget,method,encoder,agent,settings,seeds,runs,mean,std,values,evaluated_at,source"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(head.split(","))
        for budget in BUDGETS:
            for groups in scores.methods(report):
                for g in groups:
                    found = scores.at_budget(g, budget)
                    out.writerow([g.task, budget, *_names(g), *_numbers(found), "these runs"])
        for (task, budget, method), (mean, std) in other.scores.items():
            if task in report.tasks:
                blank = [""] * 3
                out.writerow([task, budget, method, *blank, "", "", mean, std, "", "", other.label])


def ended_csv(report: Report, path: Path) -> None:
    """Where groups ended, with all digits and each seed's value."""
    head = "task,method,encoder,agent,settings,seeds,runs,mean,std,values,evaluated_at,source,episodes"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*head.split(","), "samples_min", "samples_max", "hours", "steps_per_second"])
        for g in report.groups:
            e = scores.ended(g)
            row = [g.task, *_names(g), *_numbers(e.scores), e.source, e.episodes]
            out.writerow([*row, *e.effort.samples, e.effort.hours, e.effort.speed])


def _names(group: Group) -> list[str]:
    settings = ", ".join(f"{k} {v}" for k, v in group.settings)
    return [scores.paper_name(group) or group.method, group.encoder, group.agent, settings]


def _numbers(found: Summary) -> list[object]:
    mean, std = ("" if value is None else value for value in (found.mean, found.std))
    values, steps = (
        " ".join(f"{seed}={value}" for seed, value in each.items()) for each in (found.values, found.steps)
    )
    return [len(found.values), len(found.group.runs), mean, std, values, steps]


def ended(found: Sequence[Ended], looks: Looks) -> Table:
    """Where groups ended, a row for each."""
    settings = any(e.scores.group.settings for e in found)
    columns = ["task", "encoder", "agent", *(["settings"] if settings else []), "return", "seeds", "n"]
    rows = []
    for e in found:
        g, runs, counted = e.scores.group, len(e.scores.group.runs), len(e.scores.values)
        row = [Cell(g.task), Cell(g.encoder, look=looks[g.key]), Cell(g.agent)]
        row += [Cell(", ".join(together(f"{k} {v}") for k, v in g.settings) or NONE)] if settings else []
        row += [number(plus_minus(e.scores.mean, e.scores.std), WORDS[e.source])]
        row += [number(str(counted), f"of {runs}" if counted < runs else "")]
        row += [number(str(e.episodes) if e.episodes else NONE)]
        rows.append([*row, *effort_cells(e.effort)])
    return Table([*columns, "samples", "hours", "steps/s"], rows)
