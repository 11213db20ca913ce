"""`rrl reproduce fig4 --task door --budget 2h`: runs or goes on with what is needed, then the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrl.machine.console import duration
from rrl.registry import UserError
from rrl.report.figures import Published
from rrl.report.groups import collect
from rrl.report.write import check, write
from rrl.reproduce.figures import FIGURES, SEEDS, Figure, Wanted
from rrl.reproduce.published import Curves, load
from rrl.reproduce.verdict import judge
from rrl.store import results
from rrl.store.results import Result
from rrl.sweeps.backends import Local
from rrl.sweeps.engine import Engine
from rrl.sweeps.jobs import Job
from rrl.sweeps.plan import plan, request
from rrl.sweeps.state import SweepFolder
from rrl.sweeps.table import Table


def reproduce(
    figure: str,
    task: str,
    *,
    budget: float | None,
    seeds: Sequence[int] = (),
    oracles: bool = False,
    runs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    out: Path | None = None,
) -> int:
    """Run until `budget` seconds are over (None: the paper's), or judge the given `runs`; write a report and
    print the verdict. Returns the exit code: whether it could be done, not what came out."""
    if figure not in FIGURES:
        raise UserError(f"rrl reproduce knows {', '.join(FIGURES)}; got {figure}")
    known = FIGURES[figure]
    if task not in known.tasks:
        raise UserError(f"{figure} has the tasks {', '.join(known.tasks)}; got {task}")
    curves = load(figure, task)
    table = Table()
    table.line(f"{figure}, {task}: {known.title}. {curves.source}.")
    if out is not None:
        check(out)  # now, not after hours
    code = 0
    if runs:
        names, judged = list(runs), _one_method(results.find(runs))
        out = out or Path(f"{figure}_{task}.html")
    else:
        seeds = seeds or (SEEDS if budget is None else SEEDS[:1])
        folder, jobs, code = _run(known, figure, task, seeds, budget, oracles, overrides, table)
        done = folder.runs()
        names = [folder.run_id]
        judged = [results.read(done[job.fingerprint]) for job in jobs if job.fingerprint in done]
        out = out or folder.folder / "report.html"
    verdict = judge(judged, curves) if judged else None
    lines = verdict.lines() if verdict else [_nothing(judged, curves)]
    for line in lines:
        table.line(line)
    if judged:
        write(names, out, table.line, published=[_drawn(curves)], verdict="\n".join(lines))
    if not runs and budget is not None:
        table.line("the same command goes on with these runs")
    return code


def _one_method(runs: list[Result]) -> list[Result]:
    """The runs, of each seed one; UserError if they differ in more than their seeds."""
    groups = collect(runs).groups
    if len(groups) != 1:
        raise UserError(
            f"--run takes runs that differ in seed alone; these are {len(groups)} methods: "
            f"{', '.join(group.label for group in groups)}"
        )
    return list(groups[0].runs)


def _run(
    figure: Figure,
    name: str,
    task: str,
    seeds: Sequence[int],
    budget: float | None,
    oracles: bool,
    overrides: Sequence[str],
    table: Table,
) -> tuple[SweepFolder, list[Job], int]:
    """Do the runs one after another, each for its part of the budget: (sweep, jobs to judge, exit code)."""
    jobs: list[Job] = []
    judged: list[Job] = []
    for wanted in figure.wanted:
        if wanted.published or oracles:
            planned = _jobs(wanted, task, seeds, overrides, table)
            jobs += planned
            judged += planned if wanted.published else []
    folder = SweepFolder.open(f"reproduce {name} {task}")
    folder.record(jobs)
    table.line(f"{len(jobs)} runs: {', '.join(job.name for job in jobs)}")
    share = None if budget is None else budget / len(jobs)
    if share is not None:
        table.line(f"{duration(share)} for each")
    engine = Engine(folder, jobs, Local(1), table, share)
    code = engine.run()
    engine.tell_failures()
    return folder, judged, code


def _jobs(wanted: Wanted, task: str, seeds: Sequence[int], overrides: Sequence[str], table: Table) -> list[Job]:
    """A curve's runs; with the substitute, and a line that says so, where its weights can't be had."""
    file = wanted.file.format(task=task)
    _, config = request([file], seeds=seeds, overrides=overrides)
    planned = plan(file, config)
    reason = next((text for text in planned.missing if "weights" in text), "")
    if wanted.substitute and reason:
        other = wanted.substitute.format(task=task)
        table.line(f"{file} can't run here: {reason.splitlines()[0]}")
        table.line(f"instead: {other}. This is ANOTHER method than the published one.")
        planned = plan(other, config.model_copy(update={"files": (other,)}))
    planned.refuse()
    return planned.jobs


def _nothing(runs: Sequence[Result], curves: Curves) -> str:
    first, _ = curves.span
    least = min(runs, key=lambda run: run.steps, default=None)
    ours = f"our run {least.name} has reached {least.steps:,}" if least else "none of our runs has begun"
    return f"NO VERDICT: the published curve begins at {first:,} steps, {ours}"


def _drawn(curves: Curves) -> Published:
    """The published curve for the report's figure: mean and range over seeds."""
    steps = sorted({x for xs, _ in curves.seeds.values() for x in xs})
    values = [list(curves.at(step).values()) for step in steps]
    return Published(
        label=curves.label,
        task=curves.task,
        steps=steps,
        mean=[sum(scores) / len(scores) for scores in values],
        low=[min(scores) for scores in values],
        high=[max(scores) for scores in values],
        space=curves.space,
    )
