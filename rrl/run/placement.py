"""What computes where: device, precision, backend, threads, workers and groups, chosen once for a run."""

from __future__ import annotations

import os

import torch

from rrl.encoders import backends
from rrl.encoders.base import cpu_has_bf16
from rrl.encoders.settings.base import Encoder
from rrl.machine.cores import MOST_THREADS, cores
from rrl.registry import UserError
from rrl.run.experiment import Experiment


def resolve(config: Experiment.Config, without_cuda: str = "use 'auto' or 'cpu'") -> Experiment.Config:
    """Fill in what is chosen automatically, once: a resumed run must not choose again. UserError, with the remedy
    `without_cuda`, where the device isn't here."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"Experiment.device is 'cuda', but torch finds no CUDA device; {without_cuda}")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" or cpu_has_bf16() else "fp32"
    backend = config.backend
    if backend == "auto":
        encoder = config.encoder.component
        assert issubclass(encoder, Encoder)
        backend = backends.choose(encoder.backends, device, precision)
    workers = cores() if config.workers is None else config.workers
    turns = workers > 0 and backends.get(backend).overlaps(device)  # can groups take turns, and does it pay?
    chosen = {
        "groups": config.groups or (2 if turns else 1),
        "device": device,
        "precision": precision,
        "backend": backend,
        "threads": config.threads or threads(),
        "workers": workers,
    }
    return config.model_copy(update=chosen)


def threads() -> int:
    """Threads to compute with where the user's settings name none: OMP_NUM_THREADS, or one per core; no more than
    OMP_THREAD_LIMIT, beyond which OpenMP gives none. UserError where these are no numbers of threads."""
    return min(_of_openmp("OMP_NUM_THREADS") or cores(), _of_openmp("OMP_THREAD_LIMIT") or MOST_THREADS)


def _of_openmp(variable: str) -> int | None:
    """Its value; of a list such as `4,2`, which has a number for each level of nesting, the first. None: not set."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    first = text.split(",")[0].strip()
    if not (first.isascii() and first.isdigit() and len(first) < 20 and int(first) > 0):
        raise UserError(f"{variable} must be a whole number > 0; got {text!r}: correct it, or unset it")
    return min(int(first), MOST_THREADS)


def in_words(config: Experiment.Config) -> str:
    """What computes where, of a resolved configuration, in words."""
    text = f"{config.workers or 'no'} worker process{'' if config.workers == 1 else 'es'}"
    text += f", {_counted(config.num_envs, 'environment')}"
    text += f" in {config.groups} groups" if config.groups != 1 else ""
    pictures = config.encoder.frames() is not None
    text += f"; encoder by {config.backend} in {config.precision}" if pictures else "; agent"
    return f"{text} on {config.device}; {_counted(config.threads or 0, 'thread')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
