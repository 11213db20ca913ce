"""What computes frozen networks while a run goes on: registered under a name, asked here and nowhere else.

A new backend is one file: a subclass of `Backend` under `@register`, imported by `rrl.encoders.backends` or by a
plugin.
"""

from __future__ import annotations

import abc
import hashlib
import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from rrl.encoders.base import Inference, Precision, cpu_has_bf16
from rrl.encoders.input import Input
from rrl.registry import UserError

Encode = Callable[[Tensor], Tensor]
"""Pictures uint8 [N, size, size, 3] -> features float32 [N, features]."""


class Backend(abc.ABC):
    """Computes a frozen network of any input; says what it can do."""

    name: ClassVar[str]
    """What `Experiment.backend` takes; also the distribution and the package that it needs."""
    devices: ClassVar[tuple[str, ...]]
    """Types of torch devices: 'cpu', 'cuda'."""
    precisions: ClassVar[tuple[Precision, ...]]
    quantiser: ClassVar[str | None] = None
    """The package that int8 needs."""
    install: ClassVar[str] = ""
    """How to get these packages."""
    preference: ClassVar[int] = 0
    """'auto' takes the one of the highest that can do what is asked."""

    def overlaps(self, device: str) -> bool:
        """Does it pay to encode some environments' pictures while others are simulated?"""
        return True

    def missing(self, precision: Precision = "fp32") -> list[str]:
        """Packages that it needs for this precision and that aren't installed here."""
        packages = [self.name, *([self.quantiser] if self.quantiser and precision == "int8" else [])]
        return [package for package in packages if importlib.util.find_spec(package) is None]

    def refusal(self, device: str, precision: Precision) -> str | None:
        """Why it can't compute so on this machine, with the remedy; None: it can."""
        if device not in self.devices:
            others = [f"backend {b.name!r}" for b in registered() if device in b.devices]
            return (
                f"backend {self.name!r} computes on {' and '.join(self.devices)}, but the device is {device}: "
                f"choose {' or '.join(others)}"
            )
        if precision not in self.precisions:
            others = [
                f"backend {b.name!r} on {' or '.join(b.devices)}" + (f" ({b.install})" if b.install else "")
                for b in registered()
                if precision in b.precisions
            ]
            own = " or ".join(repr(p) for p in self.precisions)
            return f"precision {precision!r} needs {' or '.join(others)}; backend {self.name!r} has {own}"
        if missing := self.missing(precision):
            others = [f", or choose backend {b.name!r}" for b in registered() if device in b.devices and b is not self]
            return f"backend {self.name!r} needs the package {' and '.join(missing)}: {self.install}{''.join(others)}"
        return None

    @abc.abstractmethod
    def encode(self, network: nn.Module, picture: Input, how: Inference, delicate: int) -> Encode:
        """`network` of normalised pictures [N, ...] -> [N, features] as a function of pictures uint8 that
        returns features on `how.device`.

        `delicate`: how many of the first layers that compute keep float32 whatever the precision.
        `how.calibration` here: pictures uint8 [K, size, size, 3] of one camera each. `refusal` was asked.
        """


B = TypeVar("B", bound=type[Backend])
_backends: dict[str, Backend] = {}


def register(cls: B) -> B:
    """Class decorator: make a backend known under its name; ValueError if another class has it."""
    known = type(_backends.get(cls.name))
    if cls.name in _backends and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"backend {cls.name!r} is already registered by {known.__module__}; choose another name")
    _backends[cls.name] = cls()
    return cls


def registered() -> list[Backend]:
    """All backends, in order of registration."""
    return list(_backends.values())


def names() -> list[str]:
    """Of all backends, in order of registration."""
    return list(_backends)


def get(name: str) -> Backend:
    """The backend of this name; UserError with the list if there is none."""
    if name not in _backends:
        raise UserError(f"no backend is named {name!r}; there are {', '.join(map(repr, names()))}")
    return _backends[name]


def choose(able: tuple[str, ...] | None, device: str, precision: Precision) -> str:
    """What 'auto' comes to: of the backends `able` (None: all), the preferred one that computes `precision` on
    `device` here; where none does, the least preferred, whose `refusal` says what is missing."""
    order = sorted(registered(), key=lambda backend: -backend.preference)
    order = [backend for backend in order if able is None or backend.name in able]
    return next((b for b in order if b.refusal(device, precision) is None), order[-1]).name


def encode(network: nn.Module, picture: Input, how: Inference, delicate: int) -> Encode:
    """As `Backend.encode` of the backend that `how` names; UserError where it can't do that here."""
    backend = get(how.backend)
    if reason := backend.refusal(how.device.type, how.precision):
        raise UserError(reason)
    return backend.encode(network, picture, how, delicate)


def facts(how: Inference) -> dict[str, str]:
    """What a run's tags and a feature cache's key must say of `how`: other values, other features."""
    backend = get(how.backend)
    values = {"precision": how.precision, "backend": f"{backend.name} {version(backend.name)}"}
    if how.calibration is not None:
        if backend.quantiser is not None:
            values["quantiser"] = f"{backend.quantiser} {version(backend.quantiser)}"
        values["calibration"] = hashlib.sha256(how.calibration.tobytes()).hexdigest()[:12]
    return values


def ways(device: str) -> list[tuple[str, Precision, str | None]]:
    """Every (backend, precision, why this machine doesn't compute so natively; None: it does)."""
    return [(b.name, p, b.refusal(device, p) or _emulated(device, p)) for b in registered() for p in b.precisions]


def _emulated(device: str, precision: Precision) -> str | None:
    emulated = precision == "bf16" and device == "cpu" and not cpu_has_bf16()
    return "this CPU only emulates bf16" if emulated else None
