"""Numbers that go wrong in a run: an agent that diverged is told before anything of it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable

from rrl.agents.base import Agent, Metrics, diverged
from rrl.store.checkpoint import fault


def check(agent: Agent, when: str, metrics: Metrics) -> None:
    """UserError if a tensor that the agent goes on with has a `fault`. `metrics` are of the same moment: those that
    aren't finite say more than a weight's name does, and huge returns may be why."""
    found = fault(agent.snapshot()[0])
    if not found:
        return
    signs = [f"{name} is {value:g}" for name, value in metrics.items() if not math.isfinite(value)][:3]
    returns = [f"{metrics[name]:.3g}" for name in ("train/return_min", "train/return_max") if name in metrics]
    signs += [f"returns were {' to '.join(returns)}"] * bool(returns)
    raise diverged(agent.config, when, ", ".join([found, *signs]))


def finite(metrics: Metrics, say: Callable[[str], None]) -> Metrics:
    """Those that are numbers; the others, which JSON has no word for, are told and left out."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            say(f"note: {name} is {value:g}: it is left out, as if it had not been measured")
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
