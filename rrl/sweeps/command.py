"""`rrl sweep`, from arguments to exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrl.sweeps import estimate
from rrl.sweeps.backends import Backend, Local, Ray, Slurm, check
from rrl.sweeps.engine import Engine
from rrl.sweeps.plan import Sweep, plan
from rrl.sweeps.search import OptunaSearch
from rrl.sweeps.state import SweepFolder
from rrl.sweeps.table import Table


def sweep(
    name: str,
    config: Sweep.Config,
    *,
    jobs: int | None = None,
    budget: float | None = None,
    backend: str = "local",
    slurm: Sequence[str] = (),
    dry_run: bool = False,
    new: bool = False,
) -> int:
    """Check everything, print the plan, run it; returns the exit code."""
    settings = check(backend, slurm)
    table = Table()
    made = plan(name, config)
    count = len(made.jobs) or (config.trials or 0) * len(config.files) * max(1, len(config.seeds))
    found = estimate.of_plan(made, table.line)
    jobs = jobs or (estimate.fitting(found, count) if backend == "local" else None)
    estimate.show(made, found, count, jobs, backend, table.console)
    if dry_run:
        return 0
    folder = SweepFolder.open(name, new)
    folder.record(made.jobs, sources=list(config.files), search=config.search, metric=config.metric)
    table.line(f"sweep {folder.run_id}: {name}")
    search = OptunaSearch(made, folder) if config.search == "optuna" else None
    place = _backend(backend, jobs, settings, folder.folder, count)
    engine = Engine(folder, made.jobs, place, table, budget, search)
    already = sum(entry.state == "finished" for entry in engine.entries.values())
    if already:
        table.line(f"{already} of {count} runs are finished already; --new would begin a new sweep")
    code = engine.run()
    _report(folder, table)
    table.show(list(engine.entries.values()), last=True)
    engine.tell_failures()
    if search is not None and search.best():
        table.line(search.best())
    left = sum(entry.state != "finished" for entry in engine.entries.values())
    if left:
        table.line(f"{left} runs are not finished: the same command goes on with them")
    table.line(f"files: {folder.folder}")
    table.line(f"MLflow: {folder.tracker.uri} (sweep {folder.run_id}); look at it with: rrl ui")
    return code


def _backend(name: str, jobs: int | None, slurm: dict[str, str], folder: Path, count: int) -> Backend:
    if name == "ray":
        return Ray(min(jobs or count, count))
    if name == "slurm":
        return Slurm(jobs, slurm, folder / "slurm")
    assert jobs is not None
    return Local(min(jobs, count))


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
