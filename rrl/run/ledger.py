"""What a run has cost so far, part by part: `cost/*` in its rows of metrics, over all its resumes.

Seconds (`cost/<part>_seconds`) are the rows' own `time/*`, added up:

- `simulate`, `render`: of agents that want episodes, the wait for the simulators, which go on while pictures are
  encoded; of those that want steps, the simulators' own clocks, all environments together;
- `encode`, `act`, `update`. Augmentation is in `update`, and convolutions that learn are in `act` and `update`: nothing
  tells them apart there (`rrl bench compute` times augmentation by itself);
- `warm_start`; `evaluate`, of evaluations after updates;
- `pretrain`: of the encoder by `rrl pretrain`, collecting its pictures left out, as far as its file says.

`cost/compute_seconds` is what the paper's section 5.5 counts: all of them but `simulate`, `render` and `evaluate`. In
none of them: starting up, replaying demonstrations, final evaluations, iterations that a crash or a budget cut off.

Multiply-adds (`cost/<part>_multiply_adds`) are those of convolutions and matrix products in `encode`, `act`, `update`
and `pretrain`, and `cost/multiply_adds` their sum. Warm starts and evaluations aren't counted. As counting slows torch
down, it happens once in a run: one observation's encoding (by torch, whatever the backend) and one action, times how
many there were; and early updates, whose seconds are some more for it: of agents that learn at every step not the first
round's, which may catch up on thousands. The others are taken to cost as much for each transition of an agent that
wants episodes (what it computes on demonstrations grows with them then), for each gradient update of others.

`cost/peak_memory_mb` is the sum of the peaks of the process and its workers (`peak_memory`), `cost/peak_gpu_mb` what
tensors took of the GPU. `cost/since_step`: the environment steps at which the ledger begins, if not 0: the run began
before there was one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.base import Agent, Metrics
from rrl.encoders.base import Encoder
from rrl.envs.base import FrameRequest
from rrl.machine.multiply_adds import counted, counting, of_picture
from rrl.machine.processes import peak_memory
from rrl.rollout.data import Rollout

SECONDS = ("simulate", "render", "encode", "act", "update", "warm_start", "evaluate")
COMPUTE = ("encode", "act", "update", "warm_start", "pretrain")
COUNTED = ("encode", "act", "update")
ENOUGH = 12
"""Gradient updates that are counted: agents learn some parts at every second, third or fourth one."""


class Ledger:
    """The costs of a run under way."""

    def __init__(self, encoder: Encoder, frames: FrameRequest | None) -> None:
        """`frames`: what the encoder is shown."""
        self.encoder, self.frames = encoder, frames
        self.pretraining = encoder.training_cost()
        self.seconds, self.multiply_adds = dict.fromkeys(SECONDS, 0.0), dict.fromkeys(COUNTED, 0.0)
        self.peaks: dict[str, float] = {}
        self.units: dict[str, float] = {}
        """Multiply-adds of one observation's encoding, of one action, and of an update's transition or gradient
        update, as far as they were counted."""
        self.since = self.uncounted = 0
        """Where it began, in environment steps; and what was learnt before anything was counted."""
        self.learning = False
        """Has it learnt from any round yet?"""
        self._counted: list[tuple[int, float]] = []
        """(amount, multiply-adds) of the updates that were."""

    def snapshot(self) -> dict[str, Any]:
        """JSON-able values from which `restore` goes on."""
        names = ("seconds", "multiply_adds", "peaks", "units", "since", "uncounted", "learning")
        return {name: getattr(self, name) for name in names}

    def restore(self, values: Mapping[str, Any] | None, steps: int) -> None:
        """Undo of `snapshot`; None: a run that had no ledger in its first `steps` environment steps."""
        for name, value in ({"since": steps} if values is None else values).items():
            setattr(self, name, value)

    def sampled(self, agent: Agent, rows: NDArray[Any], counts: Mapping[str, int]) -> None:
        """Put down a collection's `Rollout.counts`; `rows` [T, n] are what the agent kept of its observations."""
        if "encode" not in self.units:
            self.units["encode"] = agent.views * self._encoding()
        if not self.units.get("act"):  # nothing, while actions are random
            row, noise = np.tile(rows[:1], agent.stack), np.zeros((1, agent.action_dim), np.float32)
            self.units["act"] = counted(lambda: agent.act(row, noise))
        for part, count in counts.items():
            self.multiply_adds[part] += count * self.units[part]

    def _encoding(self) -> float:
        if self.frames is None or self.encoder.trainable:  # then pictures are kept as they are
            return 0.0
        side, channels = self.frames.size, 3 * self.encoder.cameras * self.frames.stack
        return of_picture(self.encoder, np.zeros((1, side, side, channels), np.uint8))

    def learn(self, agent: Agent, rollout: Rollout, *, whole: bool) -> Metrics:
        """`agent.update(rollout)`, put down; `whole`: of whole episodes."""
        before, unit = agent.updates, self.units.get("update")
        with counting() if unit is None and (whole or self.learning) else nullcontext() as count:
            metrics = agent.update(rollout)
        amount = len(rollout.rewards) if whole else agent.updates - before
        if count is None:
            self.uncounted += amount
        elif count.total:
            self.multiply_adds["update"] += count.total
            self._counted.append((amount, count.total))
            made = sum(each for each, _ in self._counted)
            if made >= (1 if whole else ENOUGH):
                self.units["update"] = sum(spent for _, spent in self._counted) / made
        self.learning = self.learning or amount > 0
        if (unit := self.units.get("update")) is not None:
            self.multiply_adds["update"] += self.uncounted * unit
            self.uncounted = 0
        return metrics

    def add(self, metrics: Metrics, device: torch.device) -> Metrics:
        """Put down a row's `time/*`; returns `cost/*` of the run so far."""
        for part in SECONDS:
            self.seconds[part] += metrics.get(f"time/{part}", 0.0)
        now = {"peak_memory_mb": peak_memory(os.getpid()) / 1e6}
        if device.type == "cuda":
            now["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
        self.peaks |= {name: max(value, self.peaks.get(name, 0.0)) for name, value in now.items()}
        seconds, multiply_adds = dict(self.seconds), dict(self.multiply_adds)
        for costs, name in ((seconds, "seconds"), (multiply_adds, "multiply_adds")):
            costs |= {"pretrain": self.pretraining[name]} if name in self.pretraining else {}
        return {
            **{f"cost/{part}_seconds": value for part, value in seconds.items()},
            **{f"cost/{part}_multiply_adds": value for part, value in multiply_adds.items()},
            "cost/compute_seconds": sum(seconds.get(part, 0.0) for part in COMPUTE),
            "cost/multiply_adds": sum(multiply_adds.values()),
            **{f"cost/{name}": value for name, value in self.peaks.items()},
            "cost/since_step": float(self.since),
        }
