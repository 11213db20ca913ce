"""How a frozen encoder can be computed here."""

from __future__ import annotations

from importlib.util import find_spec


def ways() -> list[tuple[str, str]]:
    """(backend, precision) of a frozen encoder that this machine computes natively."""
    import torch

    from rrl.encoders.base import cpu_has_bf16

    bf16 = torch.cuda.is_available() or cpu_has_bf16()
    here = [("torch", "fp32")] + ([("torch", "bf16")] if bf16 else [])
    if find_spec("openvino") and not torch.cuda.is_available():
        here.append(("openvino", "fp32"))
        here += [("openvino", "bf16")] if bf16 else []
        here += [("openvino", "int8")] if find_spec("nncf") else []
    return here
