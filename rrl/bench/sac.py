"""`rrl bench sac`: RAD's updates per second, against its plain form on as many pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.rad import RAD
from rrl.agents.sac import SAC
from rrl.bench.measure import Case, Facts, Sample, reference
from rrl.encoders.base import Inference, Precision, cpu_has_bf16
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.machine.processes import keep_freed_memory
from rrl.rollout.data import Rollout

UNIT = "updates_per_second"
STORED = 1_000  # transitions in the memories: enough that a batch is spread over them
EPISODE = 125
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def cases(updates: int = 4) -> list[Case]:
    """RAD and its plain form: 128 transitions of three stacked pictures of 100 pixels, cropped to 84, hidden
    layers of 1024; `updates` in each repeat, half of them with a step of the actor. On the CPU, in float32,
    and with bf16 where the processor computes in it."""
    facts: Facts = {"batch": 128, "pictures": "100 -> 84 px, 9 channels", "threads": torch.get_num_threads()}
    keep_freed_memory()  # as a run does; the plain form gains more by it
    plain = _plain()
    timed = [Case("rad reference", _timed(plain.update, updates), {**facts, "precision": "fp32"})]
    for precision in PRECISIONS if cpu_has_bf16() else PRECISIONS[:1]:
        ours = _ours(precision)
        case = Case(f"rad {precision}", _timed(ours, updates), {**facts, "precision": precision}, "rad reference")
        timed.append(case)
    return timed


def _plain() -> Any:
    module = reference("reference_rad")
    memory = module.Memory(STORED, 9, 100, 1)
    memory.fill(np.random.default_rng(0))
    return module.Plain(memory)


def _ours(precision: Precision) -> Callable[[], object]:
    encoder = PixelCNN(PixelCNN.Config(), cameras=1)
    config = RAD.Config.model_validate({})
    agent = RAD(config, encoder=encoder, state_dim=0, action_dim=1, seed=0, inference=Inference(precision=precision))
    fill(agent)
    return lambda: agent.learn(agent.draw())


def fill(agent: SAC) -> None:
    """Put `STORED` random transitions, pictures or numbers, into the agent's memory."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> NDArray[Any]:
        if agent.pixels is None:
            return rng.standard_normal((count, agent.row), np.float32)
        return rng.integers(0, 256, (count, agent.row), np.uint8)

    for _ in range(STORED // EPISODE):
        agent.replay.add(
            Rollout(
                obs=rows(EPISODE),
                actions=rng.uniform(-1, 1, (EPISODE, agent.action_dim)).astype(np.float32),
                rewards=rng.uniform(0, 1, EPISODE),
                flags={},
                episode=np.zeros(EPISODE, np.int32),
                t=np.arange(EPISODE, dtype=np.int32),
                terminated=np.zeros(EPISODE, bool),
                truncated=np.arange(EPISODE) == EPISODE - 1,
                final_obs=rows(1),
            )
        )


def _timed(update: Callable[[], object], count: int) -> Callable[[], Sample]:
    def run() -> Sample:
        start = time.perf_counter()
        for _ in range(count):
            update()
        return Sample(count / (time.perf_counter() - start))

    return run
