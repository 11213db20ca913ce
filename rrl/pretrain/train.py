"""The loop that trains an encoder on pictures: batches in an order of their own each epoch, a checkpoint after each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl.agents.adam import Adam
from rrl.agents.base import beginning, cpu_copy
from rrl.encoders.task import TaskEncoder
from rrl.machine.console import Display, duration
from rrl.machine.multiply_adds import counted
from rrl.machine.processes import available_memory, in_bytes, keep_freed_memory
from rrl.pretrain.collect import BudgetOver
from rrl.pretrain.pretraining import KINDS, Pretraining, parts
from rrl.registry import UserError
from rrl.run.saving import CHECKPOINT
from rrl.store import checkpoint
from rrl.store.tracking import Log, Tracking

OFTEN = 50
"""Batches after which progress is told and losses are looked at: looking waits for a GPU."""
FEW = 500
"""Batches in all below which it is told that they are few."""
LOSSES = ("loss", "reconstruction", "kl")
"""Those that a line has room for."""
Metrics = dict[str, float]


class Pictures:
    """A data set's pictures in training and held out, batch by batch."""

    def __init__(self, config: Pretraining.Config, encoder: TaskEncoder, rows: NDArray[np.uint8]) -> None:
        """`rows` [n, side, side, 3] are read into memory where they take at most half of what is free: to read them
        once in their order is quicker than to pick them from a disk."""
        self.in_memory = rows.nbytes <= available_memory() / 2
        self.rows = np.array(rows) if self.in_memory else rows
        self.device = torch.device(config.device)
        self.input = encoder.source.input
        self.scale, self.shift = (part.to(self.device) for part in self.input.affine())
        counts = parts(config)
        ends = accumulate(count for count, _ in counts)
        spans = [(end - count, end - held, end) for end, (count, held) in zip(ends, counts, strict=True)]
        self.training = np.concatenate([np.arange(begin, split) for begin, split, _ in spans])
        self.held_out = [np.arange(split, end) for _, split, end in spans]
        """Of each kind of actions."""
        self.kinds = [np.arange(begin, end) for begin, _, end in spans]
        """All of each kind."""

    def __str__(self) -> str:
        where = "in memory" if self.in_memory else "read from disk as they are needed: more memory would be quicker"
        count, held = len(self.training), sum(map(len, self.held_out))
        return f"{count:,} pictures to learn from, {held:,} held out; {in_bytes(self.rows.nbytes)}, {where}"

    def batch(self, places: NDArray[np.int64]) -> Tensor:
        """Normalised pictures, as the network takes them, on the device."""
        taken = torch.from_numpy(self.rows[places]).to(self.device)
        return self.input.normalised(taken, self.scale, self.shift)

    def shuffled(self, seed: int, epoch: int, batch: int) -> Iterator[NDArray[np.int64]]:
        """The batches of an epoch, without the last incomplete one."""
        order = np.random.default_rng([seed, epoch]).permutation(self.training)
        return (order[start : start + batch] for start in range(0, len(order) - batch + 1, batch))


class Teacher:
    """An encoder's network while it learns, and what decides its future."""

    def __init__(self, config: Pretraining.Config, encoder: TaskEncoder, pictures: Pictures) -> None:
        """Of a `resolve`d configuration."""
        self.config, self.pictures, self.device = config, pictures, torch.device(config.device)
        # Channels last, as pictures lie in memory: no copy of them, and the quicker convolutions.
        self.learner = encoder.make_learner().requires_grad_(True).to(memory_format=torch.channels_last)
        self.learner.to(self.device)
        self.adam = Adam(self.learner.parameters(), config.lr)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self.pictures.training) // self.config.batch

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.config.lr * self.config.decay**epoch

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The steps of an epoch, counted from 0, with the losses of each: all that is random in them comes from the
        seed and this number."""
        seed = np.random.SeedSequence([self.config.seed, number]).generate_state(1, np.uint64)[0] >> 1
        generator = torch.Generator(self.device).manual_seed(int(seed))
        self.adam.lr = self.rate(number)
        self.learner.train()
        for places in self.pictures.shuffled(self.config.seed, number, self.config.batch):
            pictures = self.pictures.batch(places)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                losses = self.learner.losses(pictures, self.config.kl_weight, generator)
            self.adam.step(torch.autograd.grad(losses["loss"], self.adam.parameters))
            yield {name: loss.detach() for name, loss in losses.items()}

    def multiply_adds(self) -> float:
        """Of a step, forward and backward; changes nothing."""
        pictures = self.pictures.batch(self.pictures.training[: self.config.batch])
        generator = torch.Generator(self.device).manual_seed(0)
        self.learner.eval()  # else batch norm would take note of these pictures

        def step() -> None:
            losses = self.learner.losses(pictures, self.config.kl_weight, generator)
            torch.autograd.grad(losses["loss"], self.adam.parameters)

        return counted(step)

    @torch.no_grad()
    def held_out(self) -> Metrics:
        """Losses of the held-out pictures, of all and of each kind of actions, from the features as they are used."""
        self.learner.eval()
        kinds = {kind: held for kind, held in zip(KINDS, self.pictures.held_out, strict=True) if len(held)}
        sums = {kind: self._sums(held) for kind, held in kinds.items()}
        count = sum(map(len, kinds.values()))
        names = dict.fromkeys(name for each in sums.values() for name in each)
        metrics = {f"held_out/{name}": sum(each[name] for each in sums.values()) / count for name in names}
        for kind, held in kinds.items():
            metrics[f"held_out/reconstruction_{kind.replace(' ', '_')}"] = sums[kind]["reconstruction"] / len(held)
        return metrics

    def _sums(self, places: NDArray[np.int64]) -> Metrics:
        """Sums of the losses of these pictures."""
        sums: Metrics = {}
        for start in range(0, len(places), self.config.batch):
            batch = places[start : start + self.config.batch]
            for name, loss in self.learner.losses(self.pictures.batch(batch), self.config.kl_weight, None).items():
                sums[name] = sums.get(name, 0.0) + float(loss) * len(batch)
        return sums

    def snapshot(self) -> dict[str, Tensor]:
        """Fresh CPU tensors from which `restore` continues bit for bit."""
        tensors = {f"learner.{name}": cpu_copy(t) for name, t in self.learner.state_dict().items()}
        return tensors | {f"adam.{name}": t for name, t in self.adam.state().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of `snapshot`."""
        self.learner.load_state_dict(beginning(tensors, "learner."))
        self.adam.load_state(beginning(tensors, "adam."))


class Training:
    """A training under way in a folder, which gets metrics and a checkpoint after each epoch."""

    def __init__(self, teacher: Teacher, folder: Path, tracker: Tracking, display: Display) -> None:
        """From the folder's checkpoint, if it has one."""
        self.teacher, self.config = teacher, teacher.config
        self.folder, self.tracker, self.display = folder, tracker, display
        self.epoch, self.seconds, rows = 0, 0.0, 0
        """Epochs that are done, and the seconds that they took."""
        if (folder / CHECKPOINT).exists():
            tensors, values = checkpoint.load_file(folder / CHECKPOINT)
            teacher.restore(tensors)
            self.epoch, self.seconds, rows = values["epoch"], values["seconds"], values["rows"]
            display.line(f"resumed after epoch {self.epoch}")
        self.log = Log(folder / "metrics.jsonl", rows)
        tracker.metrics(self.log.rows)

    def run(self, deadline: float | None = None) -> Metrics:
        """All epochs that are left; returns the last one's metrics. BudgetOver when the `deadline`, on the monotonic
        clock, is over, or another epoch would not fit."""
        self.display.line(str(self.teacher.pictures))
        if (steps := self.teacher.steps * self.config.epochs) < FEW:
            told = f"note: {steps} steps in all are few: batch norm's statistics need some hundreds, pictures thousands"
            self.display.line(f"{told}; take more pictures or epochs, or a smaller Pretraining.batch")
        assert self.config.threads is not None
        torch.set_num_threads(self.config.threads)
        keep_freed_memory()
        while self.epoch < self.config.epochs:
            start, usual = time.monotonic(), self.seconds / max(self.epoch, 1)
            if deadline is not None and usual > deadline - start:
                raise BudgetOver
            metrics = self._learn(deadline) | self.teacher.held_out()
            self._check(metrics)
            spent = time.monotonic() - start
            self.epoch, self.seconds = self.epoch + 1, self.seconds + spent
            self.log.append(self.epoch, metrics | {"epoch": self.epoch, "time/epoch": spent})
            values = {"epoch": self.epoch, "seconds": self.seconds, "rows": len(self.log.rows)}
            checkpoint.save_file(self.folder / CHECKPOINT, self.teacher.snapshot(), values)
            self.tracker.metrics(self.log.rows)
            speed = f"{metrics['time/pictures_per_second']:,.0f} pictures/s"
            left = (self.config.epochs - self.epoch) * self.seconds / self.epoch
            words = [f"epoch {self.epoch}/{self.config.epochs}", in_words(metrics), speed]
            self.display.line("  ".join(words + [f"ETA {duration(left)}"] * bool(left)))
        return dict(self.log.rows[-1].metrics)

    def _learn(self, deadline: float | None) -> Metrics:
        """One epoch's steps, and the means of its losses."""
        start, steps = time.monotonic(), self.teacher.steps
        self.display.phase(f"epoch {self.epoch + 1}/{self.config.epochs}", steps)
        sums: dict[str, Tensor] = {}
        for number, losses in enumerate(self.teacher.epoch(self.epoch), start=1):
            sums = {name: sums.get(name, torch.zeros_like(loss).double()) + loss for name, loss in losses.items()}
            if number % OFTEN == 0 or number == steps:
                self._check(sums)
                self.display.advance((number - 1) % OFTEN + 1)
                if deadline is not None and time.monotonic() > deadline:
                    raise BudgetOver
        speed = steps * self.config.batch / (time.monotonic() - start)
        means = {f"train/{name}": float(total) / steps for name, total in sums.items()}
        return means | {"train/lr": self.teacher.rate(self.epoch), "time/pictures_per_second": speed}

    def _check(self, values: Mapping[str, Tensor | float]) -> None:
        """UserError for losses that are no numbers any more."""
        bad = [f"{name} is {float(value):g}" for name, value in values.items() if not math.isfinite(float(value))]
        if bad:
            lower = f"a lower Pretraining.lr (it is {self.config.lr:g})"
            fp32 = ", or Pretraining.precision = 'fp32'" if self.config.precision == "bf16" else ""
            raise UserError(f"the training diverged in epoch {self.epoch + 1}: {bad[0]}\n  start it with {lower}{fp32}")


def in_words(metrics: Mapping[str, float]) -> str:
    """The losses, in training and held out."""

    def losses(space: str) -> str:
        shown = (f"{name} {metrics[f'{space}/{name}']:.4g}" for name in LOSSES if f"{space}/{name}" in metrics)
        return ", ".join(shown)

    held = losses("held_out")
    return losses("train") + (f"  held out: {held}" if held else "")
