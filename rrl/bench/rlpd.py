"""RLPD's row of `rrl bench updates`: its ensemble as batched products, against a loop over separate networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rrl.agents.rlpd import RLPD
from rrl.bench.measure import Case, Facts, Sample, reference
from rrl.encoders.base import Inference, Precision, cpu_has_bf16
from rrl.encoders.state import State

STATE, ACTIONS, BATCH, HIDDEN = 39, 28, 256, (256, 256, 256)
"""The door's state; RLPD's sizes on Adroit."""
EVERY = 2
"""Updates between the actor's steps."""
Transitions = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def cases(updates: int = 20) -> list[Case]:
    """For 4 and 10 critics the plain form and ours, in float32 and, where the processor computes in it, bf16: on the
    CPU, with torch's threads, on transitions that are there; drawing them is in neither."""
    made: list[Case] = []
    for critics in (4, 10):
        facts: Facts = {"critics": critics, "batch": BATCH, "hidden": str(HIDDEN), "threads": torch.get_num_threads()}
        name = f"rlpd {critics} critics"
        made.append(Case(f"{name} reference", _timed(plain(critics), updates), {**facts, "precision": "fp32"}))
        precisions: tuple[Precision, ...] = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
        for precision in precisions:
            ours = _timed(own(agent(critics, precision)), updates)
            made.append(Case(f"{name} {precision}", ours, {**facts, "precision": precision}, f"{name} reference"))
    return made


def agent(critics: int, precision: Precision = "fp32") -> RLPD:
    """RLPD on the door's state."""
    config = RLPD.Config.model_validate(
        {"critics": critics, "hidden": HIDDEN, "actor_every": EVERY, "entropy_backup": False}
    )
    inference = Inference(device=torch.device("cpu"), precision=precision)
    sizes = {"state_dim": STATE, "action_dim": ACTIONS, "seed": 0}
    return RLPD(config, encoder=State(State.Config()), inference=inference, **sizes)


def transitions(seed: int = 0) -> Transitions:
    """(now, actions, rewards, not done, after), a batch."""
    g = torch.Generator().manual_seed(seed)
    now, after = (torch.randn(BATCH, STATE, generator=g) for _ in range(2))
    actions = torch.rand(BATCH, ACTIONS, generator=g) * 2 - 1
    return now, actions, torch.rand(BATCH, generator=g), torch.ones(BATCH), after


def own(agent: RLPD) -> Callable[[int], object]:
    """Update number i of the agent."""
    now, actions, rewards, not_done, after = transitions()

    def update(i: int) -> object:
        actor = i % EVERY == 0
        draws = (*agent.draws(BATCH), *([agent.noise(BATCH)] if actor else []))
        return agent._learn_networks(actor, True, None, now, None, after, actions, rewards, not_done, *draws)

    return update


def plain(critics: int) -> Callable[[int], object]:
    """Update number i of the plain form."""
    made: Any = reference("reference_rlpd").Plain(STATE, ACTIONS, critics, HIDDEN)
    batch, g = transitions(), torch.Generator().manual_seed(0)

    def update(i: int) -> object:
        noises = torch.randn(2, BATCH, ACTIONS, generator=g)
        return made.update(*batch, tuple(noises), torch.randperm(critics, generator=g)[:2].tolist(), actor=i % 2 == 0)

    return update


def _timed(update: Callable[[int], object], updates: int) -> Callable[[], Sample]:
    def run() -> Sample:
        start = time.perf_counter()
        for i in range(updates):
            update(i)
        return Sample(updates / (time.perf_counter() - start))

    return run
