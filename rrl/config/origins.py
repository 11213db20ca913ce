"""Where the settings of a whole configuration come from, in words and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rrl.config.grammar import Binding, Place
from rrl.config.resolve import Origin
from rrl.config.words import literal

DEFAULT = "default"
"""Where a value comes from that nothing binds: the schema."""


def place(binding: Binding) -> str:
    """`gin/method/rrl.gin:9 via gin/quickstart.gin:8`: its line, and the includes that led there."""
    via = f" via {', '.join(map(str, binding.via))}" if binding.via else ""
    return " ".join(f"{binding.place}{via}".splitlines())  # an override may be of several lines


def where(origins: Sequence[Origin]) -> str:
    """The places that decided a value; where its binding names a macro, that one's place too."""
    texts = []
    for origin in origins:
        binding, *macros = origin.bindings
        texts.append("; ".join([place(binding), *(f"%{macro.name}: {place(macro)}" for macro in macros)]))
    return ", ".join(dict.fromkeys(texts)) or DEFAULT


def overridden(origins: Sequence[Origin]) -> list[Binding]:
    """What would decide a value if the winners weren't there, the strongest first, each line once."""
    winners = {binding.place for origin in origins for binding in origin.bindings}
    lost = {binding.place: binding for origin in origins for binding in origin.overridden}
    return [binding for where, binding in lost.items() if where not in winners]


def record(binding: Binding) -> dict[str, Any]:
    """A binding for tools; one of the command line has no file and no line."""
    said = {"name": binding.label, "gin": literal(binding.value), **_spot(binding.place)}
    return {**said, "via": [_spot(include) for include in binding.via]}


def _spot(spot: Place) -> dict[str, Any]:
    typed = not spot.line
    return {"file": None if typed else spot.file, "line": None if typed else spot.line, "text": spot.text}
