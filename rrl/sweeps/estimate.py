"""What a sweep will cost: hours, memory and disk, from a short measurement of each kind of run."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rrl.agents.base import Agent
from rrl.config import ginfile
from rrl.demos.replay import DemoSet, cache_folder
from rrl.envs.base import EnvFactory
from rrl.machine.console import duration
from rrl.machine.cores import cores
from rrl.machine.processes import available_memory
from rrl.registry import UserError, build
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.store.files import read_json
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
    """Job fingerprint -> estimate, of all jobs (an Optuna search: of one combination)."""
    speeds: dict[str, speed.Speed | None] = {}
    found = {}
    for job in plan.samples:
        try:
            config = resolve(job.config)
        except UserError:  # CUDA asked for, as on the cluster that this is planned for
            config = resolve(job.config.model_copy(update={"device": "cpu"}))
        key = _kind(config)
        if key not in speeds:
            speeds[key] = _speed(job.name, config, key, say)
        found[job.fingerprint] = _estimate(config, speeds[key])
    return found


def fitting(found: dict[str, Estimate], count: int) -> int:
    """Runs to do at once on this machine: one per core, as far as half of the memory goes; on CUDA, one."""
    import torch

    if torch.cuda.is_available():
        return 1
    largest = max((estimate.memory for estimate in found.values()), default=0.0)
    room = int(min(0.5 * available_memory() / largest, cores())) if largest else cores()
    return max(1, min(count, cores(), room))


def show(
    plan: Plan,
    found: dict[str, Estimate],
    count: int,
    jobs: int | None,
    backend: str,
    console: Console,
) -> None:
    """Print the plan."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("run", "updates", "steps", "hours", "memory", "disk"):
        table.add_column(name, justify="left" if name == "run" else "right")
    every = plan.samples
    for job in every[:40]:
        estimate = found[job.fingerprint]
        table.add_row(
            escape(job.name),
            str(job.config.iterations),
            f"{training_steps(job.config):,}",
            _hours(estimate.seconds),
            _bytes(estimate.memory),
            _bytes(estimate.disk),
        )
    console.print(table)
    if len(every) > 40:
        console.print(f"and {len(every) - 40} more")
    if not plan.jobs:
        console.print(f"{count} runs, of combinations that the search will choose; above: one of them", highlight=False)
    share = count / max(len(every), 1)
    seconds = share * sum(e.seconds for e in found.values())
    if backend != "local":
        seconds /= jobs or 1
    largest = max((e.memory for e in found.values()), default=0.0) * (jobs or 1)
    disk = share * sum(e.disk for e in found.values())
    place = f"{jobs} at a time on {cores()} cores" if backend == "local" else f"on {backend}"
    console.print(
        f"{count} runs, {place}: about {_hours(seconds)}"
        f"{'' if backend == 'local' else ' if its machines are as fast as this one'}, "
        f"{_bytes(largest)} of memory, {_bytes(disk)} on disk",
        highlight=False,
    )
    for note in plan.notes:
        console.print(f"note: {escape(note)}", highlight=False)


def training_steps(config: Experiment.Config) -> int:
    """Environment steps of training."""
    env: EnvFactory = build(config.env)
    return config.iterations * (_episodes(config) * env.horizon or _steps(config))


def _episodes(config: Experiment.Config) -> int:
    """Training episodes per update."""
    agent = config.agent.component
    assert issubclass(agent, Agent)
    return int(getattr(config.agent, "trajectories", 0)) if agent.needs_rollouts else 0


def _steps(config: Experiment.Config) -> int:
    """Environment steps per iteration of an agent that learns at every step, else 0."""
    return config.log_every if hasattr(config.agent, "replay") else 0


def _estimate(config: Experiment.Config, measured: speed.Speed | None) -> Estimate:
    env: EnvFactory = build(config.env)
    per_update = _episodes(config) * env.horizon or _steps(config)
    updates = config.iterations
    evaluations = 1 + math.ceil(updates * min(1.0, per_update / config.eval_every)) if updates else 1
    extra = 0.0  # steps of evaluations and of the demonstrations' replay
    for each in config.evaluators:
        times = evaluations if each.when == "always" else 1
        kinds = 2 if getattr(each, "actions", "mean") == "both" else 1
        clones = getattr(each, "clones", 1)
        extra += times * kinds * clones * getattr(each, "episodes", 0) * env.horizon
    if config.demos is not None:
        demos: DemoSet = build(config.demos, env=env)
        # Slots advance in lockstep: a few demonstrations cost as much as a full batch of them.
        extra += max(int(demos.demos.lengths.sum()), config.num_envs * int(demos.demos.lengths.max()))
    if measured is None:
        return Estimate(0.0, 0.0, 0.0)
    # What is kept of observations: a replay memory (which is on disk as well), or an update's batch.
    kept = min(getattr(config.agent, "replay", 0), updates * _steps(config) // env.action_repeat)
    replay = kept * measured.width
    extra *= env.action_repeat
    return Estimate(
        seconds=measured.startup
        + measured.sampling * (updates * per_update + extra)
        + measured.learning * updates * per_update,
        memory=measured.memory + (replay or ARRAYS * measured.width * per_update),
        disk=2 * measured.files + BESIDE + replay,  # MLflow keeps copies
    )


def _kind(config: Experiment.Config) -> str:
    """What decides speed, as text."""
    facts = {
        k: v for k, v in ginfile.flatten(config).items() if not k.startswith(("evaluators", "demos", "seed", "iter"))
    }
    agent_changes = ("lam_", "gamma", "gae", "step_size", "bc_", "trajectories")
    facts = {k: v for k, v in facts.items() if not k.removeprefix("agent.").startswith(agent_changes)}
    facts |= {"rrl": version("rrl"), "torch": version("torch"), "cores": str(cores())}
    facts["measured"] = ",".join(speed.Speed.__dataclass_fields__)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _speed(name: str, config: Experiment.Config, key: str, say: Callable[[str], None]) -> speed.Speed | None:
    """Measured, or as measured before on this machine."""
    path = cache_folder().parent / "speeds.json"
    known = read_json(path)
    if key in known:
        return speed.Speed(**known[key])
    say(f"measuring the speed of {name} ...")
    try:
        found = speed.measure(ginfile.dumps(config))
    except (RuntimeError, OSError, ValueError) as error:
        say(f"note: its speed could not be measured ({error}); no hours and memory for it")
        return None
    with suppress(OSError):  # then it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(read_json(path) | {key: asdict(found)}, indent=1) + "\n")
        part.replace(path)
    return found


def _hours(seconds: float) -> str:
    return duration(seconds) if seconds else "unknown"


def _bytes(count: float) -> str:
    if not count:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
