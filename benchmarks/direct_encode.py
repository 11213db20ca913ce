"""A yardstick of `rrl bench encoders`: a network called by torch and by OpenVINO themselves, without rrl.

Float32 pictures that are normalised already, so nothing but the network is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Encode = Callable[[], np.ndarray]
"""() -> float32 [N, features] of always the same pictures."""


def with_torch(network: nn.Module, pictures: torch.Tensor) -> Encode:
    """`pictures`: what the network takes, on its device; on the process's threads."""

    @torch.inference_mode()
    def encode() -> np.ndarray:
        return network(pictures).cpu().numpy()

    return encode


def with_openvino(network: nn.Module, pictures: torch.Tensor, threads: int) -> Encode:
    """As OpenVINO's own tutorials convert and compile, for this batch."""
    import openvino as ov

    model = ov.convert_model(torch.export.export(network, (pictures,)))
    model.reshape(list(pictures.shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    values = pictures.numpy()
    return lambda: compiled(values)[0]
