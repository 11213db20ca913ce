"""Work on a GPU as CUDA graphs: one launch instead of many, which cost more than the arithmetic.

The one place that warms up, records and replays: agents' updates (`Replayed`) and encoders' batches use it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rrl.machine import multiply_adds

T = TypeVar("T")
Work = Callable[..., dict[str, Tensor]]
WARM_UP = 3
"""Calls that run plainly before a graph is made, as torch's documentation asks: libraries set up memory."""


def aside(work: Callable[[], T]) -> T:
    """`work()` on another stream than the main one, as a graph is recorded: what a warming-up call does."""
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        result = work()
    torch.cuda.current_stream().wait_stream(side)
    return result


def record(work: Callable[[], T]) -> tuple[Callable[[], None], T]:
    """(replay, result): each `replay()` runs `work` again on what its tensors hold by then, into `result`.

    Call it after `WARM_UP` calls `aside`. Recording computes nothing. The graph holds addresses: whoever keeps
    `replay` must keep the tensors that `work` reads (weights too), or their memory would be used anew.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class Replayed:
    """Calls functions of tensors; if `graphs`, after `WARM_UP` calls as replays of a CUDA graph.

    A function may change tensors in place (weights, an optimiser's averages), which must stay where they are
    in memory. It may not look at numbers (`item`) nor draw any, and does the same in all calls of a name with
    inputs of the same shapes.
    """

    def __init__(self, *, graphs: bool) -> None:
        self.graphs = graphs
        self.forget()

    def forget(self) -> None:
        """Make new graphs: what the functions change lies elsewhere now."""
        self._calls: dict[Hashable, int] = {}
        self.recorded: dict[Hashable, tuple[Callable[[], None], list[Tensor], dict[str, Tensor]]] = {}

    def __call__(self, name: Hashable, work: Work, *inputs: Tensor | None) -> dict[str, Tensor]:
        """`work(*inputs)`. A graph's next replay overwrites its result. Plainly while multiply-adds are counted: in a
        graph torch sees none."""
        if not self.graphs or multiply_adds.under_way():
            return work(*inputs)
        key = (name, *(None if x is None else x.shape for x in inputs))
        if key not in self.recorded:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= WARM_UP:
                return aside(lambda: work(*inputs))
            copies = [None if x is None else x.clone() for x in inputs]
            replay, result = record(lambda: work(*copies))
            self.recorded[key] = replay, [x for x in copies if x is not None], result
        replay, buffers, result = self.recorded[key]
        torch._foreach_copy_(buffers, [x for x in inputs if x is not None])
        replay()
        return result
