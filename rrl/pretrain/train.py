"""The loop that trains an encoder on pictures: batches in an order of their own each epoch, a checkpoint after each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl.agents.adam import Adam
from rrl.agents.base import beginning, cpu_copy
from rrl.encoders.task import Learner
from rrl.machine.console import Display, duration
from rrl.machine.processes import available_memory, in_bytes, keep_freed_memory
from rrl.pretrain.collect import BudgetOver
from rrl.pretrain.pretraining import Pretraining, parts
from rrl.registry import UserError
from rrl.run.saving import CHECKPOINT
from rrl.store import checkpoint
from rrl.store.tracking import Log, Tracker

OFTEN = 50
"""Batches after which progress is told and losses are looked at: looking waits for a GPU."""
Metrics = dict[str, float]


class Pictures:
    """A data set's pictures in training and held out, batch by batch."""

    def __init__(self, pretraining: Pretraining, rows: NDArray[np.uint8]) -> None:
        """Held in memory where they take at most half of what is free: reading them once in their order is quicker than
        picking them from a disk."""
        self.rows, self.device = rows, torch.device(pretraining.config.device)
        self.in_memory = rows.nbytes <= available_memory() / 2
        if self.in_memory:
            self.rows = np.array(rows)
        self.input = pretraining.encoder.source.input
        self.scale, self.shift = (part.to(self.device) for part in self.input.affine())
        counts = parts(pretraining.config)
        kinds = [
            np.arange(end - count, end)
            for end, (count, _) in zip(accumulate(count for count, _ in counts), counts, strict=True)
        ]
        split = [
            (kind[: len(kind) - held], kind[len(kind) - held :]) for kind, (_, held) in zip(kinds, counts, strict=True)
        ]
        self.training = np.concatenate([training for training, _ in split])
        self.held_out = [held for _, held in split]
        """Of each kind of actions."""

    def __str__(self) -> str:
        where = "in memory" if self.in_memory else "read from disk as they are needed (more memory would be quicker)"
        held = sum(map(len, self.held_out))
        return (
            f"{len(self.training):,} pictures to learn from ({in_bytes(self.rows.nbytes)}, {where}), {held:,} held out"
        )

    def batch(self, places: NDArray[np.int64]) -> Tensor:
        """Normalised pictures, as the network takes them, on the device."""
        taken = torch.from_numpy(self.rows[places]).to(self.device)
        return self.input.normalised(taken, self.scale, self.shift)

    def shuffled(self, seed: int, epoch: int, batch: int) -> Iterator[NDArray[np.int64]]:
        """The batches of an epoch, without the last incomplete one."""
        order = np.random.default_rng([seed, epoch]).permutation(self.training)
        return (order[start : start + batch] for start in range(0, len(order) - batch + 1, batch))


@dataclass
class Training:
    """A training under way."""

    pretraining: Pretraining
    pictures: Pictures
    folder: Path
    tracker: Tracker
    display: Display
    deadline: float | None = None
    epoch: int = field(default=0, init=False)
    """Epochs that are done."""
    seconds: float = field(default=0.0, init=False)
    """That they took."""

    def __post_init__(self) -> None:
        self.config = self.pretraining.config
        assert self.config.threads is not None
        torch.set_num_threads(self.config.threads)
        keep_freed_memory()
        self.device = torch.device(self.config.device)
        self.learner: Learner = self.pretraining.encoder.make_learner()
        self.learner.requires_grad_(True).to(memory_format=torch.channels_last)
        self.learner.to(self.device)
        self.adam = Adam(self.learner.parameters(), self.config.lr)
        self.weight = self.config.kl_weight
        if self.weight is None:
            self.weight = self.config.batch / len(self.pictures.training)
        values = self._restore()
        self.log = Log(self.folder / "metrics.jsonl", values.get("rows", 0))
        self.tracker.metrics(self.log.rows)

    def run(self) -> Metrics:
        """All epochs that are left; returns the last one's metrics. BudgetOver when the time is over."""
        self.display.line(str(self.pictures))
        while self.epoch < self.config.epochs:
            usual = self.seconds / max(self.epoch, 1)
            if self.deadline is not None and usual > self.deadline - time.monotonic():
                raise BudgetOver
            start = time.monotonic()
            metrics = self._train() | self._look()
            spent = time.monotonic() - start
            self.epoch, self.seconds = self.epoch + 1, self.seconds + spent
            metrics |= {"epoch": self.epoch, "time/epoch": spent}
            self.log.append(self.epoch, metrics)
            self._save()
            self.tracker.metrics(self.log.rows)
            left = (self.config.epochs - self.epoch) * self.seconds / self.epoch
            losses = ", ".join(f"{n.partition('/')[2]} {v:.4g}" for n, v in metrics.items() if n.startswith("train/"))
            held = metrics.get("held_out/reconstruction")
            self.display.line(
                f"epoch {self.epoch}/{self.config.epochs}  {losses}"
                + (f"  held out: reconstruction {held:.4g}" if held is not None else "")
                + f"  {metrics['time/pictures_per_second']:,.0f} pictures/s"
                + (f"  ETA {duration(left)}" if left else "")
            )
        return dict(self.log.rows[-1].metrics)

    def rate(self) -> float:
        """The learning rate of this epoch."""
        return self.config.lr * self.config.decay**self.epoch

    def step(self, pictures: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Learn from a batch; its losses."""
        assert self.weight is not None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            losses = self.learner.losses(pictures, self.weight, generator)
        self.adam.step(torch.autograd.grad(losses["loss"], self.adam.parameters))
        return {name: loss.detach() for name, loss in losses.items()}

    def _train(self) -> Metrics:
        """One epoch's steps, and the means of its losses."""
        batch, start = self.config.batch, time.monotonic()
        steps = len(self.pictures.training) // batch
        self.display.phase(f"epoch {self.epoch + 1}/{self.config.epochs}", steps)
        generator = torch.Generator(self.device).manual_seed(_word(self.config.seed, self.epoch))
        self.adam.lr = self.rate()
        self.learner.train()
        sums: dict[str, Tensor] = {}
        for number, places in enumerate(self.pictures.shuffled(self.config.seed, self.epoch, batch), start=1):
            for name, loss in self.step(self.pictures.batch(places), generator).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=self.device)) + loss
            if number % OFTEN == 0 or number == steps:
                self._check(sums)
                self.display.advance(number - (number - 1) // OFTEN * OFTEN)
                if self.deadline is not None and time.monotonic() > self.deadline:
                    raise BudgetOver
        speed = steps * batch / (time.monotonic() - start)
        means = {f"train/{name}": float(total) / steps for name, total in sums.items()}
        return means | {"train/lr": self.rate(), "time/pictures_per_second": speed}

    @torch.no_grad()
    def _look(self) -> Metrics:
        """Losses of the held-out pictures, of all and of each kind of actions, from the features as they are used."""
        assert self.weight is not None
        self.learner.eval()
        metrics, total, count = {}, {}, 0  # type: ignore[var-annotated]
        for kind, held in enumerate(self.pictures.held_out):
            sums: dict[str, float] = {}
            for start in range(0, len(held), self.config.batch):
                places = held[start : start + self.config.batch]
                for name, loss in self.learner.losses(self.pictures.batch(places), self.weight, None).items():
                    sums[name] = sums.get(name, 0.0) + float(loss) * len(places)
            if len(held):
                metrics[f"held_out/reconstruction_{kind}"] = sums["reconstruction"] / len(held)
            total = {name: total.get(name, 0.0) + value for name, value in sums.items()} or total
            count += len(held)
        self._check({name: torch.tensor(value) for name, value in total.items()})
        return {f"held_out/{name}": value / count for name, value in total.items()} | metrics

    def _check(self, sums: dict[str, Tensor]) -> None:
        """UserError for losses that are no numbers any more."""
        bad = [f"{name} is {float(total):g}" for name, total in sums.items() if not math.isfinite(float(total))]
        if bad:
            kept = f"the checkpoint after epoch {self.epoch} stays" if self.epoch else "nothing was learnt yet"
            raise UserError(
                f"{type(self.pretraining.encoder).__name__} diverged in epoch {self.epoch + 1}: {', '.join(bad)}\n"
                f"  {kept}; start again with a lower Pretraining.lr (it is {self.config.lr:g})"
                + (", or Pretraining.precision = 'fp32'" if self.config.precision == "bf16" else "")
            )

    def _save(self) -> None:
        """Replace the checkpoint."""
        tensors = {f"learner.{name}": cpu_copy(t) for name, t in self.learner.state_dict().items()}
        tensors |= {f"adam.{name}": t for name, t in self.adam.state().items()}
        values = {"epoch": self.epoch, "seconds": self.seconds, "rows": len(self.log.rows)}
        checkpoint.save_file(self.folder / CHECKPOINT, tensors, values)

    def _restore(self) -> dict[str, Any]:
        """Go on after the checkpoint's epoch, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return {}
        tensors, values = checkpoint.load_file(path)
        self.learner.load_state_dict(beginning(tensors, "learner."))
        self.adam.load_state(beginning(tensors, "adam."))
        self.epoch, self.seconds = values["epoch"], values["seconds"]
        self.display.line(f"resumed after epoch {self.epoch}")
        return values


def _word(seed: int, epoch: int) -> int:
    """A seed of torch's generators for an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
