"""Frozen networks on torch: fused and cast copies, on a GPU compiled and replayed as one CUDA graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl.encoders.backends.base import Backend, Encode, register
from rrl.encoders.base import Inference, warn_of_emulation
from rrl.encoders.input import Input
from rrl.machine import cuda_graphs

CPU_CHUNK, GPU_CHUNK = 4, 256
"""Pictures encoded at a time. On a CPU, four pictures' activations stay in the cache and below the size
from which malloc gives memory back after every layer: measured 1.7 times faster for MobileNetV2 than 24 at
once."""


@register
class Torch(Backend):
    """torch: everywhere, in float32 and bfloat16."""

    name = "torch"
    devices = ("cpu", "cuda")
    precisions = ("fp32", "bf16")

    def overlaps(self, device: str) -> bool:
        """Not on a CPU: torch's threads wait for each other on cores that simulators keep busy."""
        return device != "cpu"

    def encode(self, network: nn.Module, picture: Input, how: Inference, delicate: int) -> Encode:
        """In chunks; on CUDA with `how.batch`, padded to it and as one compiled CUDA graph."""
        device = how.device
        warn_of_emulation(how)
        lowered = fused(network)
        if how.precision == "bf16":
            lowered = in_bf16(lowered, delicate, device.type)
        lowered = in_channels_last(lowered.to(device))
        scale, shift = (tensor.to(device) for tensor in picture.affine())

        def step(pictures: Tensor) -> Tensor:
            """Pictures on the device -> features on the device."""
            features: Tensor = lowered(picture.normalised(pictures, scale, shift))
            return features.float()

        if device.type == "cuda" and how.batch is not None:
            shape = (how.batch, picture.size, picture.size, 3)
            return StaticBatch(step, shape, device, compiled=True)
        chunk = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK

        def in_chunks(pictures: Tensor) -> Tensor:
            with _exactly():
                return torch.cat([step(part.to(device)) for part in torch.split(pictures, chunk)])

        return in_chunks


class StaticBatch:
    """Runs `step` on one buffer of the shape [batch, size, size, 3] again and again, as CUDA graphs need it; fewer
    pictures than that leave old ones in the rest of the buffer, whose features are dropped.

    On a CPU all is the same but the graph: `step` is called plainly.
    """

    def __init__(self, step: Encode, shape: tuple[int, ...], device: torch.device, *, compiled: bool) -> None:
        self.on_gpu = device.type == "cuda"
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
        """uint8 [N, size, size, 3] for any N -> float32 [N, features] on the device."""
        features = self.features.new_empty(len(pictures), self.features.shape[1])
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
                features[start : start + len(part)] = self.features[rows]
        return features


def capture(step: Encode, buffer: Tensor) -> tuple[Callable[[], object], Tensor]:
    """(replay, output): `replay()` runs `step` on what `buffer` holds by then, into `output`."""
    if buffer.device.type != "cuda":
        output = step(buffer)
        return lambda: output.copy_(step(buffer)), output
    for _ in range(cuda_graphs.WARM_UP):
        cuda_graphs.aside(lambda: step(buffer))
    return cuda_graphs.record(lambda: step(buffer))


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
    """A copy with batch norms folded into the convolutions, where there are any and torch.fx can follow `forward`;
    else a plain copy, and a warning if batch norms stay."""
    from torch.fx.experimental.optimization import fuse

    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return copy.deepcopy(network)
    try:
        folded: nn.Module = fuse(network)
    except Exception as error:  # torch.fx hands on whatever a forward raises that can't be traced
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"batch norms aren't folded into the convolutions, which costs time: {reason}", stacklevel=3)
        return copy.deepcopy(network)
    return folded


def in_channels_last(network: nn.Module) -> nn.Module:
    """The same network with its convolutions' weights in the order that they are read in: `Module.to` would refuse
    tensors of five dimensions, which others may hold."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network


def in_bf16(network: nn.Module, delicate: int, device: str) -> nn.Module:
    """`network`, changed in place: all but the first `delicate` of its convolutions and linear layers hold bfloat16
    weights and compute in it, whatever the type of their input.

    A network of convolutions needs no more. What else has weights (attention, norms, embeddings) computes as
    `torch.autocast` says: matrix products in bfloat16, norms in float32.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    alone = {id(p) for p in network.parameters()} == {id(p) for layer in convolutions for p in layer.parameters()}
    for layer in layers[delicate:]:
        layer.to(torch.bfloat16)
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16),))
    if alone:
        return network
    for layer in layers[:delicate]:
        layer.forward = torch.autocast(device, enabled=False)(layer.forward)  # type: ignore[method-assign]
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return _Autocast(network, device)


class _Autocast(nn.Module):
    """A network under bfloat16's autocast. Without its cache of weights, which CUDA graphs can't have."""

    def __init__(self, network: nn.Module, device: str) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            features: Tensor = self.network(x)
        return features


@contextmanager
def _exactly() -> Iterator[None]:
    """No gradients, no TF32, and no algorithms whose sums depend on timing."""
    with torch.no_grad(), cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
