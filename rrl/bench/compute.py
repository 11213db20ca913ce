"""`rrl bench compute`: what a run computes per environment step, simulation and rendering left out (the
paper's section 5.5 and the left of its figure 5)."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from rrl.agents.base import Agent
from rrl.agents.npg import NPG
from rrl.agents.sac import SAC
from rrl.bench.measure import Case, Sample, rate
from rrl.bench.pretrain import teacher
from rrl.config import ginfile
from rrl.encoders.pixel import PixelEncoder
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.console import Display
from rrl.machine.multiply_adds import counted, of_picture
from rrl.machine.processes import keep_freed_memory
from rrl.pretrain.pretraining import Pretraining, parts
from rrl.registry import UserError, implementation
from rrl.rollout.data import Obs, Rollout
from rrl.rollout.episodes import Collector
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.run.teaching import teach

UNIT = "steps_per_second"
COUNTS = ("encode", "act", "learn", "pretrain")
STEPS = 4_000_000
"""Environment steps that costs are projected to, and an encoder's pretraining is spread over (the paper's figure)."""


@dataclass(frozen=True)
class Method:
    """A run to be measured."""

    source: str
    """Its gin file."""
    settings: tuple[str, ...] = ()
    pretraining: tuple[str, ...] = ()
    """Gin file, and settings, of its encoder's training. Without one, that costs what the encoder's file says."""


PLAIN = ("Experiment.num_envs = 1", "Experiment.threads = 1", "Experiment.precision = 'fp32'")
"""No parallel processing, as in the paper's comparison."""
RESNET = ("adroit_door_resnet34", ("ResNet.weights = None", *PLAIN))
SHIPPED: Mapping[str, Method] = {
    "RRL(ResNet34)": Method(*RESNET),
    "RRL(ResNet18)": Method(RESNET[0], (*RESNET[1], "ResNet.depth = 18")),
    "RRL(ResNet50)": Method(RESNET[0], (*RESNET[1], "ResNet.depth = 50")),
    "RRL(MobileNetV2)": Method("adroit_door_mobilenetv2", ("MobileNetV2.weights = None", *PLAIN)),
    "RRL(VAE)": Method("adroit_door_vae", ("VAE.weights = None", *PLAIN), ("pretrain/vae_adroit_door",)),
    "FERM": Method("adroit_door_ferm", ("FERM.updates_per_step = 1", *PLAIN)),
    "FERM, 2 updates a step": Method("adroit_door_ferm", ("FERM.updates_per_step = 2", *PLAIN)),
}
"""The paper's comparison. Weights change no cost, so none are needed."""


@dataclass(frozen=True)
class Lessons:
    """An encoder's whole training by `rrl pretrain`, its pictures' collection left out."""

    seconds: Callable[[], float]
    """Measured anew with each call, if it is measured."""
    multiply_adds: float


@dataclass(frozen=True)
class Run:
    """A run without its simulator: made-up pictures, states and rewards of the right shapes."""

    name: str
    experiment: Experiment
    agent: Agent
    obs: Obs
    batch: Rollout
    """Of agents that learn at every step, transitions for the memory; of others, an update's samples."""
    lessons: Lessons

    def observe(self) -> NDArray[Any]:
        """Encode the pictures of a group of environments; rows as `Agent.act` takes them."""
        observed = self.agent.observe(self.obs)
        return np.repeat(observed[:, None], self.agent.stack, 1).reshape(len(observed), -1)

    def act(self, observed: NDArray[Any]) -> None:
        """Choose an action for every environment."""
        noise = np.zeros((len(observed), self.batch.actions.shape[1]), np.float32)
        self.agent.act(observed, noise)

    def learn(self) -> float:
        """One update, or a few; returns how many environment steps they belong to."""
        if isinstance(self.agent, SAC):
            agent, config = self.agent, self.agent.config
            updates = math.lcm(config.actor_every, config.target_every)
            for _ in range(updates):
                agent.learn(agent.draw())
            return updates / config.updates_per_step * self.experiment.env.action_repeat
        assert isinstance(self.agent, NPG)
        self.agent.update(self.batch)
        return len(self.batch.rewards) * self.experiment.env.action_repeat

    def augment(self) -> float:
        """Make the views of an update's pictures, as `learn` does too; returns seconds per environment step."""
        if not isinstance(self.agent, SAC) or self.agent.pixels is None:
            return 0.0
        agent, config = self.agent, self.agent.config
        rows = torch.as_tensor(agent.draw().rows, device=agent.device)
        raw = agent.split(rows[:, :-1]), agent.split(rows[:, 1:])
        start = time.perf_counter()
        views = agent.augmented(*raw)
        for seen in views:
            assert seen.frames is not None
            seen.frames.flatten()[0].item()  # waits for a GPU
        spent = time.perf_counter() - start
        return spent * config.updates_per_step / self.experiment.env.action_repeat

    @property
    def acted(self) -> int:
        """Environment steps of one `observe` and `act`."""
        return len(self.obs.state) * self.experiment.env.action_repeat


def load(sources: Sequence[str], overrides: Sequence[str] = ()) -> list[Run]:
    """The runs of these gin files, or of the paper's comparison, each with those of the overrides (gin statements) that
    fit it. UserError for one that fits none, and for agents that aren't counted."""
    keep_freed_memory()
    wanted = {source: Method(source) for source in sources} or SHIPPED
    read = {name: _read(method, overrides) for name, method in wanted.items()}
    ginfile.must_fit(overrides, [used for _, _, used in read.values()], ", ".join(wanted))
    return [_load(name, wanted[name].source, config, trained) for name, (config, trained, _) in read.items()]


def _read(method: Method, overrides: Sequence[str]) -> tuple[Experiment.Config, Pretraining.Config | None, list[str]]:
    """(run, its encoder's training, the overrides that fit one of them)."""
    config, used = ginfile.fitting(lambda some: ginfile.load(method.source, some), overrides, method.settings)
    assert isinstance(config, Experiment.Config)
    if not method.pretraining:
        return config, None, used
    source, *settings = method.pretraining
    trained, more = ginfile.fitting(lambda some: ginfile.load(source, some, "Pretraining"), overrides, settings)
    assert isinstance(trained, Pretraining.Config)
    return config, trained, [*used, *more]


def _load(name: str, source: str, config: Experiment.Config, trained: Pretraining.Config | None) -> Run:
    config = resolve(config)
    learns = implementation(config.agent.component)
    if not issubclass(learns, NPG | SAC):
        raise UserError(
            f"{source}: this counts NPG, SAC and agents made of them, and {learns.__name__} is none; "
            "take another gin file"
        )
    experiment = Experiment(config)
    envs = WorkerVectorEnv(experiment.env, config.num_envs, experiment.frames, 0)
    try:
        collector = Collector(envs, config.groups or 1)
        quiet = Display(Console(file=io.StringIO()))
        inference = experiment.make_inference(collector, quiet)
        agent = experiment.make_agent(experiment.encoder, collector.envs, inference, 0)
        teach(agent, experiment)
        shapes = -(-envs.num_envs // collector.groups), envs.state_dim, envs.action_dim
    finally:
        envs.close()
    n, state_dim, action_dim = shapes
    rng = np.random.default_rng(0)
    frames = None
    if (wanted := experiment.frames) is not None:
        channels = 3 * experiment.encoder.cameras * wanted.stack
        frames = rng.integers(0, 256, (n, wanted.size, wanted.size, channels), np.uint8)
    obs = Obs(frames, rng.standard_normal((n, state_dim), np.float32))
    row = agent.observe(obs)[0]
    horizon = experiment.env.horizon
    if isinstance(agent, SAC):
        agent.seen.fill_(agent.config.init_steps)
        batch = _rollout(np.repeat(row[None], 2 * horizon, 0), action_dim, horizon, rng)
        agent.replay.add(batch)
    else:
        demos = int(experiment.demos.demos.lengths.sum()) if experiment.demos else 0
        samples = experiment.config.agent.wants().count * horizon
        rows = rng.standard_normal((samples + demos, len(row)), np.float32)
        batch = _rollout(rows[:samples], action_dim, horizon, rng)
        agent.remember(_rollout(rows[samples:], action_dim, horizon, rng))
    return Run(name, experiment, agent, obs, batch, _lessons(trained, experiment))


def _lessons(config: Pretraining.Config | None, experiment: Experiment) -> Lessons:
    if config is None:
        told = experiment.encoder.training_cost()
        return Lessons(lambda: told.get("seconds", 0.0), told.get("multiply_adds", 0.0))
    assert experiment.config.precision in ("fp32", "bf16")
    learning = teacher(1, config.batch, experiment.config.precision)
    steps = config.epochs * (sum(count - held for count, held in parts(config)) // config.batch)

    def seconds() -> float:
        start = time.perf_counter()
        for losses in learning.epoch(0):
            losses["loss"].item()
        return steps * (time.perf_counter() - start)

    return Lessons(seconds, steps * learning.multiply_adds())


def _rollout(obs: NDArray[Any], action_dim: int, horizon: int, rng: np.random.Generator) -> Rollout:
    count = len(obs)
    t = np.arange(count, dtype=np.int32) % horizon
    last = t == horizon - 1
    return Rollout(
        obs=obs,
        actions=rng.uniform(-1, 1, (count, action_dim)).astype(np.float32),
        rewards=rng.standard_normal(count),
        flags={},
        episode=(np.arange(count) // horizon).astype(np.int32),
        t=t,
        terminated=np.zeros(count, np.bool_),
        truncated=last,
        final_obs=obs[last],
    )


def multiply_adds(run: Run) -> dict[str, float]:
    """Multiply-adds per environment step by part, as torch counts them in convolutions and matrix products;
    what is done elementwise is left out. Warm starts (cloning, FERM's 1,600 updates) are left out too, and
    pictures that no action follows (an episode's last one). An encoder's pretraining is spread over `STEPS`."""
    encoder, frames = run.experiment.encoder, run.obs.frames
    counts = dict.fromkeys(COUNTS, 0.0)
    if frames is not None and not isinstance(encoder, PixelEncoder):
        # By torch's forward pass: other backends can't be counted.
        counts["encode"] = of_picture(encoder, frames) / run.experiment.env.action_repeat
    observed = run.observe()
    counts["act"] = counted(lambda: run.act(observed)) / run.acted
    passed: list[float] = []
    total = counted(lambda: passed.append(run.learn()))
    counts["learn"] = total / passed[0]
    counts["pretrain"] = run.lessons.multiply_adds / STEPS
    return counts


def cases(runs: Sequence[Run], least: float = 0.3) -> list[Case]:
    """A case for each run, in its own precision and backend; against the first. Pictures are encoded anew until `least`
    seconds have passed: one by one they take too short to be timed."""
    timed = []
    for run in runs:
        config = run.experiment.config
        assert config.threads is not None
        torch.set_num_threads(config.threads)
        counts = multiply_adds(run)
        facts = {f"{part}_multiply_adds": counts[part] for part in COUNTS} | {
            "multiply_adds": sum(counts.values()),
            "precision": config.precision,
            "backend": config.backend,
            "threads": config.threads or 0,
            "environments": config.num_envs,
            "task": run.experiment.env.name,
            "weights": "trained" if run.experiment.encoder.trained else "untrained",
        }
        timed.append(Case(run.name, _timed(run, least), facts, runs[0].name if run is not runs[0] else ""))
    return timed


def _timed(run: Run, least: float) -> Callable[[], Sample]:
    def work() -> Sample:
        """Seconds per environment step by part: augmentation, which is in learning, timed by itself."""
        assert run.experiment.config.threads is not None
        torch.set_num_threads(run.experiment.config.threads)
        observed = run.observe()
        encode, act = rate(run.observe, run.acted, least), rate(lambda: run.act(observed), run.acted, least / 3)
        start = time.perf_counter()
        steps = run.learn()
        learn, augment = (time.perf_counter() - start) / steps, run.augment()
        seconds = {
            "encode": 1 / encode,
            "act": 1 / act,
            "learn": max(learn - augment, 0.0),
            "augment": augment,
            "pretrain": run.lessons.seconds() / STEPS,
        }
        seconds = {part: spent for part, spent in seconds.items() if spent}
        return Sample(1 / sum(seconds.values()), seconds)

    return work
