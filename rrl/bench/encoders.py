"""`rrl bench encoders`: images per second of each backend, precision and batch that this machine has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl.bench.measure import REFERENCE, Case, Entry, Sample, rate, reference
from rrl.bench.sampling import encoder_config
from rrl.bench.ways import ways
from rrl.encoders import backends
from rrl.encoders.base import Inference, Precision
from rrl.encoders.frozen import FrozenEncoder
from rrl.machine.cores import cores
from rrl.registry import build

UNIT = "images_per_second"
DIRECTLY = "directly"
WAYS = [(backend.name, precision) for backend in backends.registered() for precision in backend.precisions]


def cases(
    encoders: Sequence[str], batches: Sequence[int] = (1, 25), seconds: float = 1.0
) -> tuple[list[Case], list[str]]:
    """(cases, what this machine leaves out and why). Each encoder's reference comes first, then its network called by
    torch and OpenVINO themselves, then all ways that run natively here, at each batch, each for `seconds` per repeat.
    On all cores, with pictures of noise."""
    threads = cores()
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = []
    for name in encoders:
        encoder: FrozenEncoder = build(encoder_config(name), cameras=1)
        facts = {
            "encoder": name,
            "weights": "trained" if encoder.trained else "untrained",
            "threads": threads,
        }
        plain = f"{REFERENCE} {name}"
        cases.append(Case(plain, _reference(encoder, device, seconds), {**facts, "batch": 1}))
        for batch in batches:
            for library, call in _directly(encoder, device, threads, batch).items():
                about = {**facts, DIRECTLY: library, "precision": "fp32", "batch": batch}
                cases.append(
                    Case(f"{name} {DIRECTLY} {library} batch {batch}", _calling(call, batch, seconds), about, plain)
                )
        side = encoder.source.input.size
        for backend, precision in ways():
            for batch in batches:
                how = Inference(
                    backend,
                    cast(Precision, precision),
                    device,
                    threads,
                    batch,
                    noise(16, side) if precision == "int8" else None,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # noise says nothing about int8's features
                    encode = encoder.inference(how)
                cases.append(
                    Case(
                        f"{name} {backend} {precision} batch {batch}",
                        _encoding(encode, noise(batch, side), seconds),
                        {**facts, "backend": backend, "precision": precision, "batch": batch},
                        plain,
                    )
                )
    reasons = {(b, p): reason for b, p, reason in backends.ways(device.type)}
    return cases, [f"left out: {b} {p} ({reasons[b, p]})" for b, p in WAYS if (b, p) not in ways()]


def shares(entries: Sequence[Entry]) -> list[str]:
    """For each encoder and batch in words: the best of our float32 ways over the better of the direct calls of the same
    turns."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.facts.get("precision") == "fp32":
            groups.setdefault((str(entry.facts["encoder"]), str(entry.facts["batch"])), []).append(entry)
    lines = []
    for members in groups.values():
        better = np.max([entry.rates for entry in members if DIRECTLY in entry.facts], axis=0)
        ratios = {e.name: float(np.median(e.rates / better)) for e in members if DIRECTLY not in e.facts}
        best = max(ratios, key=lambda name: ratios[name])
        lines.append(f"{best}: {ratios[best]:.2f} of the better direct call")
    return lines


def noise(count: int, side: int) -> NDArray[np.uint8]:
    """Pictures uint8 [count, side, side, 3], always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def _encoding(encode: Callable[[Tensor], Tensor], pictures: NDArray[np.uint8], seconds: float) -> Callable[[], Sample]:
    frames = torch.from_numpy(pictures)
    encode(frames)  # the first call allocates
    # Features end on the CPU, where collection needs them: that waits for a GPU too.
    return lambda: Sample(rate(lambda: encode(frames).cpu(), len(frames), seconds))


def _directly(
    encoder: FrozenEncoder, device: torch.device, threads: int, batch: int
) -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Library -> the network called by it on `batch` normalised pictures."""
    plain, picture = reference("direct_encode"), encoder.source.input
    pictures = picture.normalised(torch.from_numpy(noise(batch, picture.size)), *picture.affine()).contiguous()
    calls = {"torch": plain.with_torch(encoder.network.to(device), pictures.to(device))}
    if ("openvino", "fp32") in ways():
        calls["openvino"] = plain.with_openvino(encoder.network, pictures, threads)
    return calls


def _calling(call: Callable[[], object], count: int, seconds: float) -> Callable[[], Sample]:
    call()  # the first one allocates
    return lambda: Sample(rate(call, count, seconds))


def _reference(encoder: FrozenEncoder, device: torch.device, seconds: float) -> Callable[[], Sample]:
    plain, picture = reference("reference_encode"), encoder.source.input
    whole = picture.crop_from or picture.size
    pictures, network = noise(1, whole), encoder.network.to(device)
    transform = plain.transform(whole, picture.size, picture.mean, picture.std)
    plain.encode(network, pictures, transform)
    return lambda: Sample(rate(lambda: plain.encode(network, pictures, transform), 1, seconds))
