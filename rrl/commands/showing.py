"""`rrl show`: the settings of a whole configuration, each with the line that decided it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from rrl.config import ginfile, origins
from rrl.config.grammar import Binding, Reference, value_of
from rrl.config.resolve import Origin
from rrl.config.words import literal, statements

APART = 60
"""Columns of a statement, at most, behind which the places of a block stand below each other."""


@dataclass(frozen=True)
class Setting:
    """One field of one component."""

    component: str
    """With its gin scope: `Adroit`, `big/ResNet`."""
    field: str
    gin: str
    """Its value as gin source."""
    origins: tuple[Origin, ...]
    """None for a default; several where equal components of several gin scopes are one."""

    @property
    def label(self) -> str:
        """How a gin file names it: `Adroit.look`."""
        return f"{self.component}.{self.field}"


def settings(sources: Sequence[str], overrides: Sequence[str], root: str) -> list[Setting]:
    """All settings of what gin files describe, component by component. ConfigError with all mistakes."""
    config, resolver = ginfile.resolved(sources, overrides, root)
    return [
        Setting(component, field, gin, tuple(resolver.origins(node, field)))
        for component, field, node, gin in statements(config, Path(), silent=True)
    ]


def show(
    sources: Sequence[str],
    overrides: Sequence[str],
    root: str,
    line: Callable[[str], None],
    *,
    defaults: bool = False,
    as_json: bool = False,
) -> None:
    """Print the settings that something binds, with `defaults` all of them: gin source with the places as comments, or
    JSON."""
    every = settings(sources, overrides, root)
    shown = [setting for setting in every if defaults or setting.origins]
    left_out = len(every) - len(shown)
    if as_json:
        told = {"root": root, "settings": [_record(setting) for setting in shown], "defaults_left_out": left_out}
        line(json.dumps(told, indent=2))
        return
    for number, (_, block) in enumerate(groupby(shown, lambda setting: setting.component)):
        if number:
            line("")
        _print(list(block), line)
    if left_out:
        line("")
        line(_faint(f"# {left_out} setting{'s' * (left_out > 1)} at the default of the schema: --all shows them"))


def _print(block: Sequence[Setting], line: Callable[[str], None]) -> None:
    texts = [f"{setting.label} = {setting.gin}" for setting in block]
    width = max((len(text) for text in texts if len(text) <= APART), default=0)
    for setting, text in zip(block, texts, strict=True):
        line(f"{text:<{width}}  {_faint('# ' + origins.where(setting.origins))}")
        for binding in origins.overridden(setting.origins):
            line(_faint(f"    # was {_was(binding, setting)}  {origins.place(binding)}"))


def _was(binding: Binding, setting: Setting) -> str:
    value = literal(binding.value)
    same = any(binding.label == origin.bindings[0].label for origin in setting.origins)
    return value if same else f"{binding.label} = {value}"


def _faint(text: str) -> str:
    return typer.style(text, dim=True)


def _record(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.label,
        "gin": setting.gin,
        "value": _plain(value_of(setting.gin)),
        "default": not setting.origins,
        "from": [[origins.record(binding) for binding in origin.bindings] for origin in setting.origins],
        "overridden": [origins.record(binding) for binding in origins.overridden(setting.origins)],
    }


def _plain(value: Any) -> Any:
    """A value of gin's in JSON's types; a component is its reference, as gin writes it."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Reference) else value
