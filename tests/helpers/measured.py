"""Which metrics are the same in a run that is repeated."""

from __future__ import annotations

from collections.abc import Mapping


def lasting(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what clocks and the machine's memory say: `time/*`, and of `cost/*` all but multiply-adds."""
    return {
        name: value
        for name, value in metrics.items()
        if not name.startswith(("time/", "cost/")) or name.endswith("multiply_adds")
    }
