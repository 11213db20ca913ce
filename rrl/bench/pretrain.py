"""`rrl bench pretrain`: pictures per second that an encoder is trained on, against a bare torch loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from rrl.bench.encoders import noise
from rrl.bench.measure import Case, Facts, Sample, rate, reference
from rrl.encoders.base import Precision, cpu_has_bf16
from rrl.encoders.vae import VAE
from rrl.envs.base import find_task
from rrl.machine.processes import keep_freed_memory
from rrl.pretrain.pretraining import Pretraining, resolve
from rrl.pretrain.train import Pictures, Teacher
from rrl.run import placement

UNIT = "pictures_per_second"
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def cases(batches: int = 6, batch: int = 144) -> list[Case]:
    """A VAE's epochs of so many batches of `batch` pictures of noise, 64 px, as `rrl pretrain` trains it, and the same
    network in a bare loop on pictures that are ready in memory. On as many threads as a run, in float32, and with bf16
    where the processor computes in it."""
    torch.set_num_threads(placement.threads())
    keep_freed_memory()  # as a training does; the bare loop gains by it too
    timed = []
    for precision in PRECISIONS if cpu_has_bf16() else PRECISIONS[:1]:
        taught = teacher(batches, batch, precision)
        facts: Facts = {"batch": taught.config.batch, "precision": precision, "threads": torch.get_num_threads()}
        count, plain = batches * taught.config.batch, f"bare loop {precision}"
        timed.append(Case(plain, _timed(_plain(taught, precision), count), facts))
        timed.append(Case(f"pretrain {precision}", _timed(lambda t=taught: deque(t.epoch(0), 0), count), facts, plain))  # type: ignore[misc]
    return timed


def teacher(batches: int, batch: int, precision: Precision) -> Teacher:
    """Of a configuration as published, but for its data."""
    settings = {"env": find_task("adroit_door"), "encoder": VAE.Config(weights=None), "held_out": 0.0}
    settings |= {"mixture": (0.0, 0.0, 0.0, 1.0), "device": "cpu", "precision": precision}
    settings |= {"batch": batch, "pictures": batches * batch}
    config = resolve(Pretraining.Config.model_validate(settings))
    encoder = VAE(VAE.Config(weights=None), cameras=1)
    return Teacher(config, encoder, Pictures(config, encoder, noise(config.pictures, encoder.source.input.size)))


def _plain(taught: Teacher, precision: Precision) -> Callable[[], object]:
    encoder = VAE(VAE.Config(weights=None), cameras=1)
    module = encoder.make_learner().requires_grad_(True).train()
    pictures = taught.pictures.batch(taught.pictures.training).contiguous()
    plain = reference("reference_vae").Plain(module, pictures, taught.config.batch, precision == "bf16")
    epoch: Callable[[], object] = plain.epoch
    return epoch


def _timed(epoch: Callable[[], object], count: int) -> Callable[[], Sample]:
    return lambda: Sample(rate(epoch, count))
