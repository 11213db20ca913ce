"""Where the settings of a whole configuration come from, in words and as data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rrl.config import ginfile
from rrl.config.grammar import Binding, ConfigError, Place, Problem
from rrl.config.resolve import Origin
from rrl.config.words import literal
from rrl.registry import UserError

DEFAULT = "default"
"""Where a value comes from that nothing binds: the schema."""

_SETTING = re.compile(r"\b([A-Z]\w*)\.([a-z]\w*)\b")


@contextmanager
def told(sources: Sequence[str], overrides: Sequence[str], root: str = "Experiment") -> Iterator[None]:
    """Within the block, where what these gin files describe is at work, a mistake that names a setting (an
    index beyond what there is, say) becomes a ConfigError with the line that set it, if one did."""
    try:
        yield
    except ConfigError:
        raise
    except UserError as error:
        message, _, hint = str(error).partition("\n")
        setting = _SETTING.search(message)
        if setting is None:
            raise
        _, resolver = ginfile.resolved(sources, overrides, root)
        scopes = resolver.fields.get(setting[1], {})
        lines = [bound[setting[2]].place for bound in scopes.values() if setting[2] in bound]
        if len(lines) != 1 or not lines[0].line:  # several scopes: which of them is not said
            raise
        raise ConfigError([Problem.at(lines[0], message, hint.strip())]) from error


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
