"""How far an encoder's features move with backend and precision, on trajectories that int8 didn't see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rrl.bench.sampling import encoder_config
from rrl.demos import sets
from rrl.encoders import backends
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Encoder, Inference, Precision
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.registry import build

CALIBRATION, TEST = range(13), range(13, 25)
"""Demonstrations of the shipped set that int8 is calibrated with, and those that all are compared on."""


@dataclass(frozen=True)
class Row:
    """Features of one backend and precision against torch in float32."""

    encoder: str
    trained: bool
    task: str
    look: str
    backend: str
    precision: str
    frames: int
    cosine: float
    """Mean over frames."""
    least_cosine: float
    centred_rms: float
    """RMS of the error over RMS of the features, both less their means over the frames: what all frames share
    says nothing to a policy."""


def report(
    encoder: str, task: str, look: str, ways: Sequence[tuple[str, str]], every: int = 20, threads: int = 1
) -> list[Row]:
    """A row per (backend, precision): every `every`-th recorded state of demonstrations 13 to 24, rendered
    with `look`. int8 takes its ranges from demonstrations 0 to 12."""
    env = Adroit(Adroit.Config(task=task, look=look))  # type: ignore[arg-type]
    network: Encoder = build(encoder_config(encoder), cameras=len(env.cameras))
    request = cast(Any, network.config).frames()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    test = torch.from_numpy(recorded(env, request, TEST, every))
    calibration = None
    if any(precision == "int8" for _, precision in ways):
        calibration = recorded(env, request, CALIBRATION, every)
    exact = network.inference(Inference())(test).numpy()
    rows = []
    for backend, precision in ways:
        how = Inference(
            backend,
            cast(Precision, precision),
            device if device.type in backends.get(backend).devices else torch.device("cpu"),
            threads,
            calibration=calibration if precision == "int8" else None,
        )
        figures = parity(network.inference(how)(test).cpu().numpy(), exact)
        rows.append(Row(encoder, network.trained, task, look, backend, precision, len(test), *figures))
    return rows


def recorded(env: Adroit, request: FrameRequest, episodes: Sequence[int], every: int) -> NDArray[np.uint8]:
    """Frames uint8 [K, H, W, 3 * cameras] of every `every`-th recorded state of shipped demonstrations."""
    shipped = sets.load(sets.shipped()[f"{env.name}_{env.protocol}"])
    sim = env.make_one(request)
    try:
        frames = []
        for i in episodes:
            sim.reset(seed=0, options={"initial": shipped.script(i).initial})
            qpos, qvel = shipped.states(i)
            frames += [sim.show(qpos[t], qvel[t])["frames"].copy() for t in range(0, len(qpos), every)]
        return np.stack(frames)
    finally:
        sim.close()


def show(rows: Sequence[Row], console: Console) -> None:
    """A table of rows of one encoder, task and look."""
    first = rows[0]
    table = Table(
        title=f"features of {first.encoder}{'' if first.trained else ' (untrained)'} against torch fp32, "
        f"{first.task} {first.look}, {first.frames} recorded states",
        title_justify="left",
    )
    for heading in ("backend", "precision", "cosine", "least cosine", "centred RMS error"):
        table.add_column(heading, justify="left" if heading in ("backend", "precision") else "right")
    for row in rows:
        figures = f"{row.cosine:.5f}", f"{row.least_cosine:.5f}", f"{row.centred_rms:.2g}"
        table.add_row(row.backend, row.precision, *figures)
    console.print(table)
