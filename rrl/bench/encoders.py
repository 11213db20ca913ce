"""`rrl bench encoders`: images per second of each backend, precision and batch that this machine has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl.bench.measure import REFERENCE, Case, Sample, rate, reference
from rrl.bench.sampling import encoder_config
from rrl.bench.ways import ways
from rrl.encoders.base import Backend, Encoder, Inference, Precision
from rrl.machine.cores import cores
from rrl.registry import build

UNIT = "images_per_second"
WAYS = [("torch", p) for p in ("fp32", "bf16")] + [("openvino", p) for p in ("fp32", "bf16", "int8")]


def cases(
    encoders: Sequence[str], batches: Sequence[int] = (1, 25), seconds: float = 1.0
) -> tuple[list[Case], list[str]]:
    """(cases, what this machine leaves out and why). Each encoder's reference comes first, then all ways that
    run natively here, at each batch, each for `seconds` per repeat. On all cores, with pictures of noise."""
    threads = cores()
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = []
    for name in encoders:
        encoder: Encoder = build(encoder_config(name), cameras=1)
        facts = {
            "encoder": name,
            "weights": "trained" if encoder.trained else "untrained",
            "threads": threads,
        }
        plain = f"{REFERENCE} {name}"
        made.append(Case(plain, _reference(encoder, device, seconds), {**facts, "batch": 1}))
        for backend, precision in ways():
            for batch in batches:
                how = Inference(
                    cast(Backend, backend),
                    cast(Precision, precision),
                    device,
                    threads,
                    batch,
                    noise(16, 224) if precision == "int8" else None,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # noise says nothing about int8's features
                    encode = encoder.inference(how)
                made.append(
                    Case(
                        f"{name} {backend} {precision} batch {batch}",
                        _encoding(encode, batch, seconds),
                        {**facts, "backend": backend, "precision": precision, "batch": batch},
                        plain,
                    )
                )
    return made, [f"left out: {b} {p} ({_reason(b, p)})" for b, p in WAYS if (b, p) not in ways()]


def noise(count: int, side: int) -> NDArray[np.uint8]:
    """Pictures uint8 [count, side, side, 3], always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def _encoding(encode: Callable[[Tensor], Tensor], batch: int, seconds: float) -> Callable[[], Sample]:
    frames = torch.from_numpy(noise(batch, 224))
    encode(frames)  # the first call allocates
    # Features end on the CPU, where collection needs them: that waits for a GPU too.
    return lambda: Sample(rate(lambda: encode(frames).cpu(), batch, seconds))


def _reference(encoder: Any, device: torch.device, seconds: float) -> Callable[[], Sample]:
    plain = reference("reference_encode")
    pictures = noise(1, 256)
    network = encoder.network.to(device)
    plain.encode(network, pictures)
    return lambda: Sample(rate(lambda: plain.encode(network, pictures), 1, seconds))


def _reason(backend: str, precision: str) -> str:
    if backend == "openvino" and torch.cuda.is_available():
        return "for CPUs; this machine has a GPU"
    if precision == "bf16":
        return "this CPU only emulates bf16"
    return "pip install 'rrl[cpu]'"
