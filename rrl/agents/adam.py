"""Adam for all agents: torch's fused kernel, without `torch.optim.Optimizer` around it.

A class of `torch.optim` imports torch's compiler when it is first used (2 s in every process, torch 2.14),
and takes as long for its bookkeeping as a small step's arithmetic does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Kingma & Ba 2015 with beta2 = 0.999, eps = 1e-8; `weight_decay` is added to the gradient (coupled)."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, *, beta: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        """For `parameters` that stay where they are: on one device, float32. `beta` is beta1."""
        self.parameters = list(parameters)
        self.lr, self.beta, self.weight_decay = lr, beta, weight_decay
        self.reset()

    def reset(self) -> None:
        """As before the first step."""
        self.averages = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(average) for average in self.averages]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move each parameter along its gradient, of the same shape."""
        adam(
            self.parameters,
            [
                g if g.stride() == p.stride() else laid_out(g, p)
                for g, p in zip(gradients, self.parameters, strict=True)
            ],
            self.averages,
            self.squares,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=self.beta,
            beta2=0.999,
            lr=self.lr,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def drop_denormals(self) -> None:
        """Zero what lies below float32's normal range in the moments. Those of dead ReLUs' weights decay
        into it and stay (0.9 times the smallest number rounds to itself), and CPUs are far slower there."""
        tiny = torch.finfo(torch.float32).tiny
        for moment in (*self.averages, *self.squares):
            moment.masked_fill_(moment.abs() < tiny, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Everything it remembers, as fresh CPU tensors `<parameter's index>.<name>`."""
        return {
            f"{i}.{name}": t.to("cpu", copy=True)
            for name, tensors in self._named().items()
            for i, t in enumerate(tensors)
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of `state`, for the same parameters. Nothing: as before the first step (what checkpoints from
        then held while the agents still used torch's class)."""
        self.reset()
        if tensors:
            for name, ours in self._named().items():
                for i, t in enumerate(ours):
                    saved = tensors[f"{i}.{name}"]
                    if saved.shape != t.shape:  # it would be broadcast
                        raise ValueError(f"{name} of parameter {i} is {list(saved.shape)}, not {list(t.shape)}")
                    t.copy_(saved)

    def _named(self) -> dict[str, list[Tensor]]:
        return {"step": self.steps, "exp_avg": self.averages, "exp_avg_sq": self.squares}


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """A copy of `x` in memory as `like` is: a fused Adam goes through a parameter, its gradient and their
    averages in the order of memory, and is silently wrong if one is channels_last and another one not
    (torch 2.14)."""
    return torch.empty_like(like, requires_grad=False).copy_(x)
