"""What a sweep will cost: hours, memory and disk, from a short measurement of each kind of run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rrl.agents.settings.base import Agent, Episodes
from rrl.config import ginfile
from rrl.envs.base import EnvFactory
from rrl.machine.console import duration
from rrl.machine.cores import cores
from rrl.machine.paths import caches
from rrl.machine.processes import available_memory, in_bytes
from rrl.registry import UserError, build
from rrl.run.experiment import Experiment
from rrl.run.fits import iteration_steps, training_steps
from rrl.run.placement import resolve
from rrl.store import files
from rrl.sweeps import speed
from rrl.sweeps.plan import Plan

ARRAYS = 3.5
"""Memory of an update over the size of its observations: the rollout itself and what learning adds (measured,
docs/performance.md: 193 MB beside the 86 MB of 40,000 x 536)."""
BESIDE = 3e6
"""Bytes that a run leaves beside its tensors: video, plot, texts; with MLflow's copies."""


@dataclass(frozen=True)
class Estimate:
    """Of one run; zero where it could not be measured."""

    seconds: float
    """With the machine's cores to itself; on a share of them accordingly longer."""
    memory: float
    """Bytes at its peak."""
    disk: float
    """Bytes that it leaves."""


def of_plan(plan: Plan, say: Callable[[str], None]) -> dict[str, Estimate]:
    """Job fingerprint -> estimate, of all jobs (an Optuna search: of one combination) that lack nothing here."""
    speeds: dict[str, speed.Speed | None] = {}
    estimates = {}
    stopped = plan.stopped()
    for job in plan.samples:
        if job.fingerprint in stopped:
            continue
        try:
            config = resolve(job.config)
        except UserError:  # CUDA asked for, as on the cluster that this is planned for
            config = resolve(job.config.model_copy(update={"device": "cpu"}))
        key = _kind(config)
        if key not in speeds:
            speeds[key] = _speed(job.name, config, key, say)
        measured = speeds[key]
        estimates[job.fingerprint] = Estimate(0.0, 0.0, 0.0) if measured is None else of_run(config, measured)
    return estimates


def of_run(config: Experiment.Config, measured: speed.Speed) -> Estimate:
    """Of a run, from the speed of its kind."""
    training = training_steps(config)
    env: EnvFactory = build(config.env)
    stored = config.agent.memory(training // env.action_repeat) * measured.width
    wants, batch = config.agent.wants(), 0.0
    if isinstance(wants, Episodes):  # the batch of an agent that wants steps has been measured
        batch = ARRAYS * measured.width * wants.count * env.horizon
    return Estimate(
        seconds=measured.startup
        + measured.sampling * (training + _other_steps(config, env))
        + measured.learning * training,
        memory=measured.memory + stored + batch,
        disk=2 * measured.files + BESIDE + stored,  # MLflow keeps copies
    )


def _other_steps(config: Experiment.Config, env: EnvFactory) -> int:
    """Environment steps of evaluations and of the demonstrations' replay."""
    times = 1  # after the warm start
    if config.iterations:
        times += math.ceil(config.iterations * min(1.0, iteration_steps(config) / config.eval_every))
    steps = sum((times if e.when == "always" else 1) * e.steps(env) for e in config.evaluators)
    if config.demos is not None:
        lengths = build(config.demos, env=env).demos.lengths
        # Slots advance in lockstep: a few demonstrations cost as much as a full batch of them.
        steps += max(int(lengths.sum()), config.num_envs * int(lengths.max()))
    return steps * env.action_repeat


def fitting(estimates: Mapping[str, Estimate], count: int) -> int:
    """Runs to do at once on this machine: one per core, as far as half of the memory goes; on CUDA, one."""
    import torch

    if torch.cuda.is_available():
        return 1
    largest = max((estimate.memory for estimate in estimates.values()), default=0.0)
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
) -> None:
    """Print the plan. `where` the runs are done, in words; `here`: on this machine's cores, which they share."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("run", "updates", "steps", "hours", "memory", "disk"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for job in plan.samples[:40]:
        estimate = estimates.get(job.fingerprint)
        costs = [_hours(estimate.seconds), _bytes(estimate.memory), _bytes(estimate.disk)] if estimate else ["missing"]
        table.add_row(escape(job.name), str(job.config.iterations), f"{training_steps(job.config):,}", *costs)
    console.print(table)
    if len(plan.samples) > 40:
        console.print(f"and {len(plan.samples) - 40} more")
    if not plan.jobs:
        console.print(f"{count} runs, of combinations that the search will choose; above: one of them", highlight=False)
    share = count / max(len(plan.samples), 1)
    without = f" without the {len(plan.samples) - len(estimates)} that lack something" if plan.missing else ""
    seconds = share * sum(estimate.seconds for estimate in estimates.values())
    if not here:
        seconds /= jobs or 1
    largest = max((estimate.memory for estimate in estimates.values()), default=0.0) * (jobs or 1)
    disk = share * sum(estimate.disk for estimate in estimates.values())
    console.print(
        f"{count} runs, {where}: about {_hours(seconds)}{without}"
        f"{'' if here else ' if its machines are as fast as this one'}, "
        f"{_bytes(largest)} of memory, {_bytes(disk)} on disk",
        highlight=False,
    )
    for note in plan.notes:
        console.print(f"note: {escape(note)}", highlight=False)


def _kind(config: Experiment.Config) -> str:
    """What decides speed, as text."""
    agent = config.agent.component
    assert issubclass(agent, Agent)
    ignored = {"seed", "iterations", *(f"agent.{name}" for name in agent.speed_ignores)}
    settings = {
        name: value
        for name, value in ginfile.flatten(config).items()
        if name not in ignored and not name.startswith(("evaluators", "demos"))
    }
    facts = {"rrl": version("rrl"), "torch": version("torch"), "cores": str(cores())}
    facts["measured"] = ",".join(speed.Speed.__dataclass_fields__) + ", per environment step"
    return hashlib.sha256(json.dumps(settings | facts, sort_keys=True).encode()).hexdigest()[:24]


def _speed(name: str, config: Experiment.Config, key: str, say: Callable[[str], None]) -> speed.Speed | None:
    """Measured, or as measured before on this machine."""
    path = caches() / "speeds.json"
    known = files.read_json(path)
    if key in known:
        return speed.Speed(**known[key])
    say(f"measuring the speed of {name} ...")
    try:
        measured = speed.measure(ginfile.dumps(config))
    except (RuntimeError, OSError, ValueError) as error:
        say(f"note: its speed could not be measured ({error}); no hours and memory for it")
        return None
    with suppress(OSError):  # then it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, files.read_json(path) | {key: asdict(measured)})
    return measured


def _hours(seconds: float) -> str:
    return duration(seconds) if seconds else "unknown"


def _bytes(count: float) -> str:
    return in_bytes(count) if count else "unknown"
