"""Multiply-adds of what torch computes: of convolutions and matrix products, as torch itself counts them. What is done
elementwise is left out, and so is what other libraries compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

_under_way = False


class Count:
    """What was counted so far."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self._counter = counter

    @property
    def total(self) -> float:
        """Multiply-adds: half of torch's operations."""
        return self._counter.get_total_flops() / 2


@contextmanager
def counting() -> Iterator[Count]:
    """Count within the block. No number comes out differently, but each operation takes some 100 us longer."""
    global _under_way
    from torch.utils.flop_counter import FlopCounterMode  # with triton: half a second that a run's start needn't wait

    # NPG adds products in place, which torch's own table lacks.
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place}) as counter:
        before, _under_way = _under_way, True
        try:
            yield Count(counter)
        finally:
            _under_way = before


def under_way() -> bool:
    """Is anything being counted? Work that torch would not see, such as a replayed graph, must then be done plainly."""
    return _under_way


def counted(work: Callable[[], object]) -> float:
    """Multiply-adds of `work()`."""
    with counting() as count:
        work()
    return count.total


@torch.no_grad()
def of_picture(network: nn.Module, frames: NDArray[np.uint8]) -> float:
    """Multiply-adds of an encoder's forward pass on the first of these frames [N, H, W, 3 * cameras * stack]."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with _attention_in_parts():
        return counted(lambda: network(torch.as_tensor(frames[:1], device=device)))


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Attention as matrix products: torch counts nothing in its kernels that do all of it at once."""
    whole = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(whole)


def _in_place(_into: Sequence[int], a: Sequence[int], b: Sequence[int], **_rest: object) -> int:
    return 2 * a[0] * a[1] * b[1]
