"""`rrl sweep`, from arguments to exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from rrl.config.grammar import Place
from rrl.machine.console import optional_output
from rrl.machine.cores import cores
from rrl.sweeps import backends, estimate
from rrl.sweeps.engine import Engine
from rrl.sweeps.plan import Sweep, plan
from rrl.sweeps.search import OptunaSearch
from rrl.sweeps.state import SweepFolder, finished
from rrl.sweeps.table import Table


def sweep(
    name: str,
    config: Sweep.Config,
    places: Mapping[str, Place] | None = None,
    *,
    jobs: int | None = None,
    budget: float | None = None,
    backend: str = "local",
    slurm: Sequence[str] = (),
    dry_run: bool = False,
    new: bool = False,
) -> int:
    """Check everything (`places`: see `plan`), print the plan, run it; returns the exit code."""
    with nullcontext() if dry_run else optional_output():  # a plan that was asked for is needed
        place, settings = backends.find(backend, slurm)
        table = Table()
        planned = plan(name, config, places)
        if not dry_run:
            planned.refuse()
        count = len(planned.jobs) or (config.trials or 0) * len(config.files) * max(1, len(config.seeds))
        estimates = estimate.of_plan(planned, table.line)
        if place.here and not jobs:
            jobs = estimate.fitting(estimates, count)
        where = f"{jobs} at a time on {cores()} cores" if place.here else f"on {backend}"
        done = set() if new else finished(name)
        estimate.show(planned, estimates, count, jobs, place.here, where, table.console, done)
        if dry_run:
            planned.refuse()
            return 0
        with SweepFolder.open(name, new) as folder:
            folder.record(planned.jobs, sources=list(config.files), search=config.search, metric=config.metric)
            table.line(f"sweep {folder.run_id}: {name}")
            search = OptunaSearch(planned, folder) if config.search == "optuna" else None
            started = place.make(jobs, count, settings, folder.folder)
            return _run(Engine(folder, planned.jobs, started, table, budget, search), count)


def _run(engine: Engine, count: int) -> int:
    """Run it and say how it ended; returns the exit code."""
    folder, table = engine.sweep, engine.table
    already = sum(entry.state == "finished" for entry in engine.entries.values())
    if already:
        table.line(f"{already} of {count} runs are finished already; --new would begin a new sweep")
    code = engine.run()
    _report(folder, table)
    table.show(list(engine.entries.values()), last=True)
    engine.tell_failures()
    if engine.search is not None and engine.search.best():
        table.line(engine.search.best())
    left = sum(entry.state != "finished" for entry in engine.entries.values())
    if left:
        table.line(f"{left} runs are not finished: the same command goes on with them")
    table.line(f"files: {folder.folder}")
    table.line(f"MLflow: {folder.tracker.uri} (sweep {folder.run_id}); look at it with: rrl ui")
    return code


def _report(folder: SweepFolder, table: Table) -> None:
    """The page about what there is so far; a fault in it must not fail the sweep."""
    from rrl.report.write import write

    path = folder.folder / "report.html"
    try:
        write([folder.run_id], path, lambda text: None)
    except Exception as error:
        table.line(f"no report: {type(error).__name__}: {error}; try: rrl report {folder.run_id[:8]}")
        return
    folder.tracker.artifact(path)
    table.line(f"report: {path}")
