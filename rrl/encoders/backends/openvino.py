"""Frozen networks on OpenVINO, for CPUs: float32, bfloat16, and int8 after quantisation by NNCF.

Pictures go in as they are rendered; normalisation is part of the compiled network. Each stream has one
thread and takes a few pictures at a time, so threads never wait for each other, and neither their number nor
their timing changes a bit.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rich
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrl.encoders.backends.base import Backend, Encode, register
from rrl.encoders.backends.pytorch import fused
from rrl.encoders.base import Inference
from rrl.encoders.input import Input
from rrl.registry import UserError

CHUNK = 2
"""Pictures per call of a stream; fewer are padded. Measured: 1 is up to 10 % slower, 4 and 8 are no faster,
and threads share few pictures more evenly in small parts."""
CALIBRATION = 128
"""Most pictures that int8's ranges are taken from."""
POOR = 0.3
"""Centred RMS error of int8 features from which on a warning is due."""


@register
class OpenVINO(Backend):
    """OpenVINO on a CPU: faster than torch, with features equal to 1e-5 in float32; int8 by NNCF."""

    name = "openvino"
    devices = ("cpu",)
    precisions = ("fp32", "bf16", "int8")
    quantiser = "nncf"
    install = "pip install 'rrl[cpu]'"
    preference = 1

    def encode(self, network: nn.Module, picture: Input, how: Inference, delicate: int) -> Encode:
        """With `how.threads`. UserError for int8 without calibration. The function is for one caller at a time."""
        if how.precision == "int8" and (how.calibration is None or len(how.calibration) < CHUNK):
            raise UserError(
                "precision 'int8' takes its ranges from pictures of the task: give `Inference.calibration` "
                f"frames of recorded episodes (about {CALIBRATION}, at least {CHUNK})"
            )
        with _quietly():
            ov = importlib.import_module("openvino")
            core = ov.Core()
            models = [_converted(ov, network, picture)]
            if how.precision == "int8":
                nncf = importlib.import_module("nncf")
                models = [_quantised(ov, nncf, core, models[0], how, delicate)]
            elif how.precision == "bf16":
                if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                    warnings.warn(
                        "this CPU has no bf16: OpenVINO computes in fp32 instead; set precision fp32",
                        stacklevel=4,
                    )
                models = _split(ov, models[0], delicate) if delicate else models
            hints = ["f32"] * (len(models) - 1) + ["bf16" if how.precision == "bf16" else "f32"]
            stages = [_Stage(ov, core, m, how.threads, hint) for m, hint in zip(models, hints, strict=True)]

        def run(pictures: Tensor) -> Tensor:
            values: NDArray[Any] = np.ascontiguousarray(pictures.cpu().numpy())
            for stage in stages:
                values = stage(values)
            return torch.from_numpy(values)

        return run


class _Stage:
    """A compiled model [CHUNK, ...] -> [CHUNK, ...], run on any number of rows."""

    def __init__(self, ov: Any, core: Any, model: Any, threads: int, hint: str) -> None:
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": hint,
                "ENABLE_CPU_PINNING": False,  # simulators and renderers use the same cores
            },
        )
        self.shape = tuple(compiled.output(0).shape)[1:]
        self.queue = ov.AsyncInferQueue(compiled, threads)

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        rows = np.ascontiguousarray(rows)  # OpenVINO reads shared memory as if it were
        values = np.empty((len(rows), *self.shape), np.float32)

        def keep(request: Any, place: slice) -> None:
            values[place] = request.get_output_tensor(0).data[: place.stop - place.start]

        self.queue.set_callback(keep)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            place = slice(start, start + len(part))
            if len(part) < CHUNK:
                part = np.concatenate([part, np.zeros_like(rows, shape=(CHUNK - len(part), *rows.shape[1:]))])
            self.queue.start_async({0: part}, place, share_inputs=True)
        self.queue.wait_all()
        return values


def parity(features: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float, float]:
    """(mean cosine, least cosine, centred RMS error) of features [N, dim] against a reference of N > 1 rows.

    Centred: both less their means over the rows, as what all pictures share says nothing to a policy; the
    error is in units of the centred reference's RMS.
    """
    dot = (features * reference).sum(1, dtype=np.float64)
    cosine = dot / (np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1))
    centred = reference - reference.mean(0)
    error = features - features.mean(0) - centred
    rms = np.sqrt(np.square(error, dtype=np.float64).mean() / np.square(centred, dtype=np.float64).mean())
    return float(cosine.mean()), float(cosine.min()), float(rms)


def _converted(ov: Any, network: nn.Module, picture: Input) -> Any:
    """The model uint8 [CHUNK, size, size, 3] -> float32 [CHUNK, features]."""
    side, (scale, shift) = picture.size, picture.affine()
    example = picture.normalised(torch.zeros(CHUNK, side, side, 3, dtype=torch.uint8), scale, shift).contiguous()
    try:
        model = ov.convert_model(torch.export.export(fused(network), (example,)))
    except Exception as error:  # of both, for what they can't follow or have no rule for
        with torch.inference_mode():
            network(example)  # a fault of the network's own is told as such
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"OpenVINO can't take this network: {reason}\n  set backend 'torch'") from error
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout(picture.layout))
    # scale * x + shift, as (x - mean) / std.
    mean, std = (-shift / scale).flatten().tolist(), (1 / scale).flatten().tolist()
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(std)
    model = steps.build()
    model.reshape([CHUNK, side, side, 3])
    return model


def _layers(model: Any) -> list[Any]:
    """What computes with weights, in the order of computation: convolutions and products with a constant matrix."""
    nodes = [(node, node.get_type_name()) for node in model.get_ordered_ops()]
    return [
        node
        for node, kind in nodes
        if kind.endswith("Convolution") or (kind == "MatMul" and _is_constant(node.input_value(1).get_node()))
    ]


def _attends(model: Any) -> bool:
    """Has it attention? What goes into that must be quantised with care: DINOv2's features would be 100 % off."""
    return any(node.get_type_name() in ("ScaledDotProductAttention", "Softmax") for node in model.get_ops())


def _is_constant(node: Any) -> bool:
    """Does it depend on constants alone, as weights that are converted or transposed?"""
    sources = [value.get_node() for value in node.input_values()]
    return node.get_type_name() == "Constant" or (bool(sources) and all(map(_is_constant, sources)))


def _split(ov: Any, model: Any, delicate: int) -> list[Any]:
    """[the model up to its first `delicate` layers, the rest]: OpenVINO has one precision per model."""
    head, tail = model.clone(), model.clone()
    upper = ov.Model([_layers(head)[delicate].input_value(0)], head.get_parameters())
    cut = _layers(tail)[delicate].input_value(0)
    entry = ov.opset13.parameter(cut.get_partial_shape(), ov.Type.f32)
    for user in cut.get_target_inputs():
        user.replace_source_output(entry.output(0))
    try:
        return [upper, ov.Model(tail.get_results(), [entry])]
    except RuntimeError as error:  # another tensor goes on beside that one
        raise UserError(
            f"OpenVINO can't compute the first {delicate} layers of this network apart: a connection passes by "
            "them. Choose backend 'torch' or precision 'fp32'"
        ) from error


def _quantised(ov: Any, nncf: Any, core: Any, model: Any, how: Inference, delicate: int) -> Any:
    """The model with int8 weights and activations; warns if its features are poor."""
    assert how.calibration is not None
    logging.getLogger("nncf").setLevel(logging.ERROR)  # importing it set another level
    count = min(CALIBRATION, len(how.calibration)) // CHUNK * CHUNK
    pictures = how.calibration[np.linspace(0, len(how.calibration) - 1, count).round().astype(int)]
    parts = [pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK)]
    cpu = torch.cpu.get_capabilities()
    # Without VNNI, sums of two products saturate at 16 bits unless weights use only half of their range.
    fix = "disable" if cpu.get("avx512_vnni") or cpu.get("avx_vnni") else "enable"
    names = [node.get_friendly_name() for node in _layers(model)[:delicate]]
    small = nncf.quantize(
        model,
        nncf.Dataset(parts),
        subset_size=len(parts),
        target_device=nncf.TargetDevice.CPU,
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if _attends(model) else None,
        ignored_scope=nncf.IgnoredScope(names=names),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix(fix)),
    )
    sample = pictures[:: max(1, len(pictures) // 16)]
    exact, rough = (_Stage(ov, core, m, how.threads, "f32")(sample) for m in (model, small))
    if (error := parity(rough, exact)[2]) > POOR:
        warnings.warn(
            f"int8 features of this network are poor: {100 * error:.0f} % off (centred RMS) on the pictures "
            "they were calibrated with. Set precision fp32 or bf16",
            stacklevel=4,
        )
    return small


@contextmanager
def _quietly() -> Iterator[None]:
    """No chatter, no progress bars, no telemetry (OpenVINO's packages do without it where it is missing)."""
    telemetry = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension", "torch.export")]
    levels = [logger.level for logger in loggers]
    console = rich.get_console()
    quiet = console.quiet
    try:
        console.quiet = True
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        console.quiet = quiet
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if telemetry is None:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = telemetry
