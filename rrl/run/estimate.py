"""What a run will cost: time, memory and disk, from a short measurement of its kind."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rrl.agents.settings.base import Agent, Episodes
from rrl.config import ginfile
from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Evaluator
from rrl.machine.cores import cores
from rrl.machine.paths import caches
from rrl.registry import build
from rrl.run import speed
from rrl.run.experiment import Experiment
from rrl.run.fits import iteration_steps, training_steps
from rrl.store import files

ARRAYS = 3.5
"""Memory of an update over the size of its observations: the rollout itself and what learning adds (measured,
docs/performance.md: 193 MB beside the 86 MB of 40,000 x 536)."""
TRACKING = 2e8
"""Memory of what a run imports and the measurement doesn't: MLflow with its database, the plot (measured: 206 MB)."""
BESIDE = 3e6
"""Bytes that a run leaves beside its tensors: video, plot, texts; with MLflow's copies."""


@dataclass(frozen=True)
class Estimate:
    """Of one run; zero where it could not be measured."""

    seconds: float
    """With the machine's cores to itself; on a share of them accordingly longer."""
    other: float
    """Seconds of that in evaluators that do more than run the policy, as if it were all that they do: they may train
    clones, or film."""
    memory: float
    """Bytes at its peak."""
    disk: float
    """Bytes that it leaves."""


def of_run(config: Experiment.Config, fast: speed.Speed) -> Estimate:
    """Of a run, from the speed of its kind."""
    training = training_steps(config)
    env: EnvFactory = build(config.env)
    stored = config.agent.memory(training // env.action_repeat) * fast.width
    wants, batch = config.agent.wants(), 0.0
    if isinstance(wants, Episodes):  # the batch of an agent that wants steps has been measured
        batch = ARRAYS * fast.width * wants.count * env.horizon
    policy = other = 0.0
    for evaluator, times, each in evaluations(config, env):
        if _runs_the_policy(evaluator):
            policy += times * each
        else:
            other += fast.sampling * times * each
    return Estimate(
        seconds=fast.startup
        + fast.sampling * (training + policy + _replayed(config, env))
        + fast.learning * training
        + other,
        other=other,
        memory=fast.memory + TRACKING + stored + batch,
        disk=2 * fast.files + BESIDE + stored,  # MLflow keeps copies
    )


def evaluations(config: Experiment.Config, env: EnvFactory) -> list[tuple[Evaluator.Config, int, int]]:
    """(evaluator, how often it runs, environment steps of each time) of all evaluators."""
    times = 1  # after the warm start
    if config.iterations:
        times += math.ceil(config.iterations * min(1.0, iteration_steps(config) / config.eval_every))
    repeat = env.action_repeat
    return [(each, times if each.when == "always" else 1, each.steps(env) * repeat) for each in config.evaluators]


def untimed(config: Experiment.Config) -> list[str]:
    """What `Estimate.seconds` doesn't tell, in words: the warm start, and the evaluators of `Estimate.other`."""
    agent = config.agent.component
    assert issubclass(agent, Agent)
    names = [each.component.__name__ for each in config.evaluators if not _runs_the_policy(each)]
    return ["the warm start"] * (agent.demos == "required") + list(dict.fromkeys(names))


def steps(config: Experiment.Config) -> int:
    """Environment steps of the whole run: training, evaluations, the demonstrations' replay."""
    env: EnvFactory = build(config.env)
    evaluated = sum(times * each for _, times, each in evaluations(config, env))
    return training_steps(config) + evaluated + _replayed(config, env)


def known(config: Experiment.Config) -> speed.Speed | None:
    """How fast runs like this (resolved) one were when that was measured on this machine; None: it never was."""
    values = files.read_json(_path()).get(kind(config))
    return speed.Speed(**values) if values else None


def measured(config: Experiment.Config) -> speed.Speed:
    """Measured now, in a process of its own, and kept. RuntimeError, OSError or ValueError if it fails."""
    fast = speed.measure(ginfile.dumps(config))
    with suppress(OSError):  # then it is measured again next time
        _path().parent.mkdir(parents=True, exist_ok=True)
        files.write_json(_path(), files.read_json(_path()) | {kind(config): asdict(fast)})
    return fast


def _path() -> Path:
    return caches() / "speeds.json"


def _runs_the_policy(evaluator: Evaluator.Config) -> bool:
    cls = evaluator.component
    assert issubclass(cls, Evaluator)
    return cls.measures_score


def _replayed(config: Experiment.Config, env: EnvFactory) -> int:
    """Environment steps of the demonstrations' replay."""
    if config.demos is None:
        return 0
    lengths = build(config.demos, env=env).demos.lengths
    # Slots advance in lockstep: a few demonstrations cost as much as a full batch of them.
    return int(max(lengths.sum(), config.num_envs * lengths.max())) * env.action_repeat


def kind(config: Experiment.Config) -> str:
    """What decides speed, as text."""
    agent = config.agent.component
    assert issubclass(agent, Agent)
    ignored = {"seed", "iterations", *(f"agent.{name}" for name in agent.speed_ignores)}
    settings = {
        name: value
        for name, value in ginfile.flatten(config).items()
        if name not in ignored and not name.startswith(("evaluators", "demos", "trackers", "system_metrics"))
    }
    facts = {"rrl": version("rrl"), "torch": version("torch"), "cores": str(cores())}
    facts["measured"] = ",".join(speed.Speed.__dataclass_fields__) + ", per environment step"
    return hashlib.sha256(json.dumps(settings | facts, sort_keys=True).encode()).hexdigest()[:24]
