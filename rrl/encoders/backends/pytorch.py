"""Frozen networks on torch: fused and cast copies, on a GPU compiled and replayed as one CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from rrl.encoders.base import Inference, warn_of_emulation
from rrl.registry import UserError

CPU_CHUNK, GPU_CHUNK = 4, 256
"""Pictures encoded at a time. On a CPU, four pictures' activations stay in the cache and below the size
from which malloc gives memory back after every layer: measured 1.7 times faster for MobileNetV2 than 24 at
once."""

Encode = Callable[[Tensor], Tensor]
"""Pictures uint8 [N, 224, 224, 3] -> features float32 [N, features]."""


def encode(network: nn.Module, scale: Tensor, shift: Tensor, how: Inference, delicate: int) -> Encode:
    """`network` of `scale * pictures + shift` (both [1, 3, 1, 1]), as `how` says, on `how.device`.

    `delicate`: how many of the first convolutions keep float32 whatever the precision.
    UserError for int8, which only OpenVINO computes.
    """
    if how.precision == "int8":
        raise UserError(
            "precision 'int8' needs backend 'openvino' on a CPU: pip install 'rrl[cpu]', "
            "or choose precision 'bf16' or 'fp32'"
        )
    device = how.device
    warn_of_emulation(how)
    lowered = fused(network)
    if how.precision == "bf16":
        _to_bf16(lowered, delicate)
    lowered = lowered.to(device).to(memory_format=torch.channels_last)
    scale, shift = scale.to(device), shift.to(device)

    def step(pictures: Tensor) -> Tensor:
        """Pictures on the device -> features on the device."""
        normalised = torch.addcmul(shift, pictures.permute(0, 3, 1, 2).float(), scale)
        features: Tensor = lowered(normalised)
        return features.float()

    if device.type == "cuda" and how.batch is not None:
        return StaticBatch(step, how.batch, device, compiled=True)
    chunk = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK

    def in_chunks(pictures: Tensor) -> Tensor:
        with _exactly():
            return torch.cat([step(part.to(device)) for part in torch.split(pictures, chunk)])

    return in_chunks


class StaticBatch:
    """Runs `step` on one buffer of `batch` pictures again and again, as CUDA graphs need it; fewer pictures
    than that leave old ones in the rest of the buffer, whose features are dropped.

    On a CPU all is the same but the graph: `step` is called plainly.
    """

    def __init__(self, step: Encode, batch: int, device: torch.device, *, compiled: bool) -> None:
        self.on_gpu = device.type == "cuda"
        shape = (batch, 224, 224, 3)
        # Pages that the GPU reads by itself, while this process goes on.
        self.staging = torch.zeros(shape, dtype=torch.uint8, pin_memory=self.on_gpu)
        self.pictures = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.uploaded: Any = None
        with ExitStack() as stack:
            stack.enter_context(_exactly())
            if self.on_gpu:
                stack.enter_context(torch.cuda.device(device))
                self.uploaded = torch.cuda.Event()  # type: ignore[no-untyped-call]
            if compiled:
                step = compile_or_warn(step, self.pictures)
            # Kept, as a graph holds addresses: without an owner the weights' memory would be used anew.
            self.step = step
            self.replay, self.features = capture(step, self.pictures)

    def __call__(self, pictures: Tensor) -> Tensor:
        """uint8 [N, 224, 224, 3] for any N -> float32 [N, features] on the device."""
        found = self.features.new_empty(len(pictures), self.features.shape[1])
        with _exactly():
            for start in range(0, len(pictures), len(self.staging)):
                part = pictures[start : start + len(self.staging)]
                rows = slice(0, len(part))
                if self.uploaded is not None:
                    self.uploaded.synchronize()  # or the previous part would be overwritten on its way
                self.staging[rows] = part
                self.pictures[rows].copy_(self.staging[rows], non_blocking=True)
                if self.uploaded is not None:
                    self.uploaded.record()
                self.replay()
                found[start : start + len(part)] = self.features[rows]
        return found


def capture(step: Encode, buffer: Tensor) -> tuple[Callable[[], object], Tensor]:
    """(replay, output): `replay()` runs `step` on what `buffer` holds by then, into `output`."""
    if buffer.device.type != "cuda":
        output = step(buffer)
        return lambda: output.copy_(step(buffer)), output
    # Warm up beside the main stream first, as torch's documentation of CUDA graphs asks.
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(buffer)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step(buffer)
    return graph.replay, output


def compile_or_warn(step: Encode, example: Tensor) -> Encode:
    """`torch.compile(step)`; where that fails (no compiler, say), `step` itself and a warning that says why.

    In the default mode: without torch's own CUDA graphs, as `capture` makes one of everything, and without
    `max-autotune`, which was not through MobileNetV2's layers after a minute on an H200 (torch 2.11).
    """
    try:
        faster: Encode = torch.compile(step, dynamic=False)
        faster(example)
    except Exception as error:  # whatever compilers and drivers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"torch.compile failed, so the encoder runs without it: {reason}", stacklevel=2)
        return step
    return faster


def fused(network: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions."""
    from torch.fx.experimental.optimization import fuse

    copy: nn.Module = fuse(network)
    return copy


def _to_bf16(network: nn.Module, delicate: int) -> None:
    """Let all but the first `delicate` convolutions compute in bfloat16, whatever the type of their input."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions[delicate:]:
        module.to(torch.bfloat16)
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16),))


@contextmanager
def _exactly() -> Iterator[None]:
    """No gradients, no TF32, and no algorithms whose sums depend on timing."""
    with torch.no_grad(), cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
