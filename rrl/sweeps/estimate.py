"""What a sweep will cost: hours, memory and disk, from a short measurement of each kind of run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rrl.machine.console import duration
from rrl.machine.cores import cores
from rrl.machine.processes import available_memory, in_bytes
from rrl.registry import UserError
from rrl.run import estimate
from rrl.run.estimate import Estimate
from rrl.run.experiment import Experiment
from rrl.run.fits import training_steps
from rrl.run.placement import resolve
from rrl.run.speed import Speed
from rrl.sweeps.plan import Plan


def of_plan(plan: Plan, say: Callable[[str], None]) -> dict[str, Estimate]:
    """Job fingerprint -> estimate, of all jobs (an Optuna search: of one combination) that lack nothing here."""
    speeds: dict[str, Speed | None] = {}
    estimates, unknown = {}, Estimate(0.0, 0.0, 0.0, 0.0)
    stopped = plan.stopped()
    for job in plan.samples:
        if job.fingerprint in stopped:
            continue
        try:
            config = resolve(job.config)
        except UserError:  # CUDA asked for, as on the cluster that this is planned for
            config = resolve(job.config.model_copy(update={"device": "cpu"}))
        key = estimate.kind(config)
        if key not in speeds:
            speeds[key] = _speed(job.name, config, say)
        measured = speeds[key]
        estimates[job.fingerprint] = unknown if measured is None else estimate.of_run(config, measured)
    return estimates


def fitting(estimates: Mapping[str, Estimate], count: int) -> int:
    """Runs to do at once on this machine: one per core, as far as half of the memory goes; on CUDA, one."""
    import torch

    if torch.cuda.is_available():
        return 1
    largest = max((each.memory for each in estimates.values()), default=0.0)
    room = int(min(0.5 * available_memory() / largest, cores())) if largest else cores()
    return max(1, min(count, cores(), room))


def show(
    plan: Plan,
    estimates: Mapping[str, Estimate],
    count: int,
    jobs: int | None,
    here: bool,
    where: str,
    console: Console,
    done: Collection[str] = (),
) -> None:
    """Print the plan. `where` the runs are done, in words; `here`: on this machine's cores, which they share; `done`:
    fingerprints of jobs that an earlier call has finished."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("run", "updates", "steps", "time", "memory", "disk"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for job in plan.samples[:40]:
        cost = estimates.get(job.fingerprint)
        row = [_hours(cost.seconds), _bytes(cost.memory), _bytes(cost.disk)] if cost else ["missing"]
        row = ["finished"] if job.fingerprint in done else row
        table.add_row(escape(job.name), str(job.config.iterations), f"{training_steps(job.config):,}", *row)
    console.print(table)
    if len(plan.samples) > 40:
        console.print(f"and {len(plan.samples) - 40} more")
    if not plan.jobs:
        console.print(f"{count} runs, of combinations that the search will choose; above: one of them", highlight=False)
    share = count / max(len(plan.samples), 1)
    without = f" without the {len(plan.samples) - len(estimates)} that lack something" if plan.missing else ""
    finished = sum(job.fingerprint in done for job in plan.jobs)
    left = [each for fingerprint, each in estimates.items() if fingerprint not in done]
    seconds = share * sum(each.seconds for each in left)
    if not here:
        seconds /= jobs or 1
    largest = max((each.memory for each in left), default=0.0) * (jobs or 1)
    disk = share * sum(each.disk for each in left)
    costs = (
        f"{where}: about {_hours(seconds)}{without}{'' if here else ' if its machines are as fast as this one'}, "
        f"{_bytes(largest)} of memory, {_bytes(disk)} on disk"
    )
    if finished:
        costs = f"{finished} of them finished already" + (f", {costs}" if finished < count else "")
    console.print(f"{count} runs, {costs}", highlight=False)
    for note in plan.notes:
        console.print(f"note: {escape(note)}", highlight=False)


def _speed(name: str, config: Experiment.Config, say: Callable[[str], None]) -> Speed | None:
    """Measured, or as measured before on this machine."""
    known = estimate.known(config)
    if known is not None:
        return known
    say(f"measuring the speed of {name} ...")
    try:
        return estimate.measured(config)
    except (RuntimeError, OSError, ValueError, UserError) as error:
        say(f"note: its speed could not be measured ({error}); no hours and memory for it")
        return None


def _hours(seconds: float) -> str:
    return duration(seconds) if seconds else "unknown"


def _bytes(count: float) -> str:
    return in_bytes(count) if count else "unknown"
