"""The numbers behind a page, with all digits, as CSV files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rrl.report import table1
from rrl.report.groups import Group, Report, seed_of
from rrl.report.numbers import Final, Scores, final
from rrl.store import files, tables

Record = Mapping[str, object]
ENDED = ("task", "method", "encoder", "agent", "settings", "seeds", "runs", "mean", "std", "values", "evaluated_at")
EFFORT = ("samples_min", "samples_max", "hours", "steps_per_second")


def write_all(report: Report, folder: Path) -> None:
    """The files of a page; those of scores that are not counted only where there are any."""
    counted, numeric = report.judged(counted=True), report.judged(counted=False)
    curves_csv(report, folder / "curves.csv")
    table_csv([final(group) for group in counted.groups], folder / "table.csv")
    cost_csv(report, folder / "cost.csv")
    if numeric.groups:
        scores_csv(numeric, folder / "scores.csv")
        returns_csv([final(group) for group in numeric.groups], folder / "returns.csv")


def cost_csv(report: Report, path: Path) -> None:
    """The ledger of each run as it stands in the end, `cost/*`; no file if none has one."""
    records = []
    for group in report.groups:
        for run in group.all_runs:
            names = dict.fromkeys(name for row in run.rows for name in row.metrics if name.startswith("cost/"))
            costs = {name.removeprefix("cost/"): run.last(name) for name in names}
            records += [{**_names(group), "run": run.run_id, "seed": seed_of(run), **costs}] if costs else []
    if records:
        _write(path, list(dict.fromkeys(name for record in records for name in record)), records)


def _write(path: Path, columns: Sequence[str], records: Iterable[Record]) -> None:
    files.write_text(path, tables.csv_of(columns, records))


def curves_csv(report: Report, path: Path) -> None:
    """All scores and returns of all runs, one measurement a line."""
    columns = ("run", "name", "task", "encoder", "agent", "seed", "step", "metric", "value")
    _write(path, columns, _measurements(report))


def _measurements(report: Report) -> Iterator[Record]:
    for group in report.groups:
        facts = {"task": group.task, "encoder": group.encoder, "agent": group.agent}
        for run in group.all_runs:
            # Of shares of episodes with their intervals and variants, such as `final/success_low_sampled`.
            counted = "".join(rf"|\w*{name}\w*" for name in {run.score.name, *run.flags} if run.score.counted)
            wanted = re.compile(rf"(train|eval|final)/(return|episodes{counted})")
            own = {**facts, "run": run.run_id, "name": run.name, "seed": seed_of(run)}
            for row in run.rows:
                metrics = {name: value for name, value in row.metrics.items() if wanted.fullmatch(name)}
                yield from ({**own, "step": row.step, "metric": m, "value": v} for m, v in metrics.items())


def table_csv(finals: Sequence[Final], path: Path) -> None:
    """Where groups with counted scores ended, episodes pooled."""
    flags = list(dict.fromkeys(flag for f in finals for flag in f.flags))
    controls = list(dict.fromkeys(kind for f in finals for kind in f.controls))
    columns = ["task", "encoder", "agent", "settings", "n", "wins", "success", "low", "high", *flags, "sampled"]
    columns += [*controls, "source", "sampled_source", "seeds", "success_seeds", *EFFORT]
    _write(path, columns, map(_counted, finals))


def _counted(end: Final) -> Record:
    scores, sampled = end.scores, end.sampled
    low, high = scores.interval or (None, None)
    return {
        **_names(end.group),
        "n": scores.episodes,
        "wins": scores.wins,
        "success": scores.mean,
        "low": low,
        "high": high,
        **end.flags,
        "sampled": sampled.mean,
        **end.controls,
        "source": scores.metric,
        "sampled_source": sampled.metric,
        "seeds": len(end.group.runs),
        "success_seeds": len(scores.by_seed),
        **_effort(end),
    }


def returns_csv(finals: Sequence[Final], path: Path) -> None:
    """Where groups whose scores are not counted ended, with each seed's value (`0=812.5 1=790.25`)."""
    records = [
        {**_method(end.group), **_by_seed(end.scores), "source": end.scores.metric, **_effort(end)}
        | {"episodes": end.scores.episodes}
        for end in finals
    ]
    _write(path, (*ENDED, "source", "episodes", *EFFORT), records)


def scores_csv(report: Report, path: Path) -> None:
    """The paper's table 1, published numbers below ours."""
    paper = table1.published()
    records: list[Record] = [
        {**_method(group), "budget": budget, **_by_seed(table1.at_budget(group, budget)), "source": "these runs"}
        for budget in paper.budgets
        for groups in table1.in_order(report)
        for group in groups
    ]
    records += [
        {"task": task, "budget": budget, "method": method, "mean": mean, "std": std, "source": paper.label}
        for (task, budget, method), (mean, std) in paper.scores.items()
        if task in report.tasks
    ]
    _write(path, ("task", "budget", *ENDED[1:], "source"), records)


def _names(group: Group) -> dict[str, object]:
    settings = ", ".join(f"{name} {value}" for name, value in group.settings)
    return {"task": group.task, "encoder": group.encoder, "agent": group.agent, "settings": settings}


def _method(group: Group) -> dict[str, object]:
    return {**_names(group), "method": table1.column(group) or group.method}


def _by_seed(scores: Scores) -> dict[str, object]:
    return {
        "seeds": len(scores.by_seed),
        "runs": len(scores.group.runs),
        "mean": scores.mean,
        "std": scores.std,
        "values": " ".join(f"{seed}={point.value}" for seed, point in scores.by_seed.items()),
        "evaluated_at": " ".join(f"{seed}={point.step}" for seed, point in scores.by_seed.items()),
    }


def _effort(end: Final) -> dict[str, object]:
    return dict(zip(EFFORT, (*end.samples, end.hours, end.speed), strict=True))
