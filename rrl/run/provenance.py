"""What a result was made with: what a run can't change on the way, and what a policy file remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from rrl.encoders.settings.base import same_weights
from rrl.envs.base import EnvFactory
from rrl.registry import Component, source_of

if TYPE_CHECKING:
    from rrl.encoders.base import Encoder

EXACT = ("torch", "mujoco", "numpy")
"""Other versions of these may compute other bits, whatever the parts say."""


def codes(classes: Iterable[type]) -> dict[str, str]:
    """Per class of a plugin a checksum of its code, which may compute something else tomorrow."""
    return {f"code of {cls.__name__}": code for cls in classes if (code := source_of(cls))}


def classes(encoder: Encoder, env: EnvFactory) -> list[type]:
    """Whose code decides observations and rewards: with the encoders that the encoder is made of."""
    inside = {type(module) for module in encoder.modules() if isinstance(module, Component)}
    return [*sorted(inside, key=lambda cls: cls.__name__), type(env)]


def libraries(encoder: Encoder, env: EnvFactory) -> dict[str, str]:
    """Versions of those that may compute other bits."""
    return {name: _version(name) for name in dict.fromkeys((*EXACT, *env.packages, *encoder.packages))}


def versions(encoder: Encoder, env: EnvFactory, agent: type) -> dict[str, str]:
    """Of libraries and of plugins' code: others may compute other bits."""
    return libraries(encoder, env) | codes([*classes(encoder, env), agent])


def environment(env: EnvFactory) -> dict[str, str]:
    """What an environment says of itself beyond its settings and versions, such as the checksum of a model's file."""
    known = {*env.packages, *type(env.config).model_fields}
    return {f"environment.{name}": value for name, value in env.facts().items() if name not in known}


def changed(began: Mapping[str, object], now: Mapping[str, str]) -> list[str]:
    """What is otherwise than it was, in words. What an earlier version didn't write down isn't compared."""
    told = {name: str(began[name]) for name in now if name in began}
    return [f"{name} {then} (now {now[name]})" for name, then in told.items() if not _same(name, then, now[name])]


def _same(name: str, then: str, now: str) -> bool:
    return then == now or (name == "weights" and same_weights(then, now))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
