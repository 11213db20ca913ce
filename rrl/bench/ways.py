"""How a frozen encoder can be computed here."""

from __future__ import annotations


def ways() -> list[tuple[str, str]]:
    """(backend, precision) of a frozen encoder that this machine computes natively."""
    import torch

    from rrl.encoders import backends

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [(name, precision) for name, precision, reason in backends.ways(device) if reason is None]
