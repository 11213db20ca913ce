"""`rrl bench compute`: what a run computes per environment step, simulation and rendering left out (the
paper's section 5.5)."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rrl.agents.base import Agent
from rrl.agents.npg import NPG
from rrl.agents.sac import SAC
from rrl.bench.measure import Case, Sample
from rrl.config import ginfile
from rrl.encoders.base import Encoder
from rrl.encoders.pixel import PixelEncoder
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.console import Display
from rrl.machine.processes import keep_freed_memory
from rrl.registry import UserError
from rrl.rollout.data import Obs, Rollout
from rrl.rollout.episodes import Collector
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve

UNIT = "steps_per_second"
COUNTS = ("encode", "act", "learn")

SHIPPED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "RRL(ResNet34)": ("adroit_door_resnet34", ("ResNet.weights = None",)),
    "RRL(ResNet18)": ("adroit_door_resnet34", ("ResNet.weights = None", "ResNet.depth = 18")),
    "RRL(ResNet50)": ("adroit_door_resnet34", ("ResNet.weights = None", "ResNet.depth = 50")),
    "RRL(MobileNetV2)": ("adroit_door_mobilenetv2", ("MobileNetV2.weights = None",)),
    "FERM": ("adroit_door_ferm", ("FERM.updates_per_step = 1",)),
    "FERM, 2 updates a step": ("adroit_door_ferm", ("FERM.updates_per_step = 2",)),
}
"""Gin file and settings of the paper's comparison. Weights change no cost, so none are needed."""


@dataclass(frozen=True)
class Run:
    """A run without its simulator: made-up pictures, states and rewards of the right shapes."""

    name: str
    experiment: Experiment
    agent: Agent
    obs: Obs
    batch: Rollout
    """Of agents that learn at every step, transitions for the memory; of others, an update's samples."""

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
                agent.learn(agent.replay.draw(config.batch, agent.generator))
            return updates / config.updates_per_step * self.experiment.env.action_repeat
        assert isinstance(self.agent, NPG)
        self.agent.update(self.batch)
        return len(self.batch.rewards) * self.experiment.env.action_repeat

    @property
    def acted(self) -> int:
        """Environment steps of one `observe` and `act`."""
        return len(self.obs.state) * self.experiment.env.action_repeat


def load(sources: Sequence[str]) -> list[Run]:
    """The runs of these gin files, or of the paper's comparison. UserError for agents that aren't counted."""
    keep_freed_memory()
    wanted = {source: (source, ()) for source in sources} or SHIPPED
    return [_load(name, source, settings) for name, (source, settings) in wanted.items()]


def _load(name: str, source: str, settings: Sequence[str]) -> Run:
    config = ginfile.load(source, settings)
    assert isinstance(config, Experiment.Config)
    config = resolve(config)
    learns = config.agent.component
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
    return Run(name, experiment, agent, obs, batch)


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
    pictures that no action follows (an episode's last one)."""
    encoder, frames = run.experiment.encoder, run.obs.frames
    counts = dict.fromkeys(COUNTS, 0.0)
    if frames is not None and not isinstance(encoder, PixelEncoder):
        # By torch's forward pass: other backends can't be counted.
        counts["encode"] = encoder_multiply_adds(encoder, frames) / run.experiment.env.action_repeat
    observed = run.observe()
    counts["act"] = _counted(lambda: run.act(observed)) / run.acted
    passed: list[float] = []
    total = _counted(lambda: passed.append(run.learn()))
    counts["learn"] = total / passed[0]
    return counts


@torch.no_grad()
def encoder_multiply_adds(encoder: Encoder, frames: NDArray[np.uint8]) -> float:
    """Multiply-adds of encoding the first of these frames [N, H, W, 3 * cameras * stack], counted likewise."""
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    with _attention_in_parts():
        return _counted(lambda: encoder(torch.as_tensor(frames[:1], device=device)))


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Attention as matrix products: torch counts nothing in its kernels that do all of it at once."""
    whole = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(whole)


def _counted(work: Callable[[], object]) -> float:
    # NPG adds products in place, which torch's own table lacks.
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place}) as counter:
        work()
    return float(counter.get_total_flops()) / 2


def _in_place(_into: Sequence[int], a: Sequence[int], b: Sequence[int], **_rest: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def cases(runs: Sequence[Run]) -> list[Case]:
    """A case for each run, in its own precision and backend; against the first."""
    timed = []
    for run in runs:
        config, counts = run.experiment.config, multiply_adds(run)
        facts = {f"{part}_multiply_adds": counts[part] for part in COUNTS} | {
            "multiply_adds": sum(counts.values()),
            "precision": config.precision,
            "backend": config.backend,
        }
        timed.append(Case(run.name, _timed(run), facts, runs[0].name if run is not runs[0] else ""))
    return timed


def _timed(run: Run) -> Callable[[], Sample]:
    def work() -> Sample:
        """Seconds per environment step by part."""
        assert run.experiment.config.threads is not None
        torch.set_num_threads(run.experiment.config.threads)
        start = time.perf_counter()
        observed = run.observe()
        encoded = time.perf_counter()
        run.act(observed)
        acted = time.perf_counter()
        steps = run.learn()
        learn = (time.perf_counter() - acted) / steps
        seconds = {
            "encode": (encoded - start) / run.acted,
            "act": (acted - encoded) / run.acted,
            "learn": learn,
        }
        return Sample(1 / sum(seconds.values()), seconds)

    return work
