"""The settings of components as JSON Schema: pydantic's, with components referred to as gin files do it.

What it describes is the JSON form of a gin file, the values of `rrl show --json`: component -> field -> value, where a
component stands as the text `@Name()` or `@scope/Name()`.
"""

from __future__ import annotations

import inspect
import types
import typing
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

from rrl import registry
from rrl.config.words import candidates, component_types, literal, meant
from rrl.registry import Config, UserError

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def of_component(name: str) -> dict[str, Any]:
    """The schema of one component's settings. UserError for an unknown name."""
    if name not in registry.names():
        raise UserError(f"no component is named {name}\n  {meant(name, registry.names())}")
    return {"$schema": DIALECT, **_settings(name)}


def of_all() -> dict[str, Any]:
    """The schema of a whole gin file: each component is a property, with its settings under `$defs`."""
    names = registry.names()
    return {
        "$schema": DIALECT,
        "title": "rrl",
        "description": "Component -> field -> value; components are referred to as '@Name()' or '@scope/Name()'.",
        "type": "object",
        "properties": {name: {"$ref": f"#/$defs/{name}"} for name in names},
        "patternProperties": {rf"^(\w+/)+{name}$": {"$ref": f"#/$defs/{name}"} for name in names},
        "additionalProperties": False,
        "$defs": {name: _settings(name) for name in names},
    }


def _settings(name: str) -> dict[str, Any]:
    cls = registry.get(name)
    fields: Any = {key: (_as_text(info.annotation), _field(info)) for key, info in cls.Config.model_fields.items()}
    model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    described = {"description": inspect.cleandoc(cls.__doc__ or "")} if cls.__dict__.get("__doc__") else {}
    return {**model.model_json_schema(), **described}


def _field(info: FieldInfo) -> Any:
    """The field's description, limits and default."""
    given: dict[str, Any] = {"description": inspect.cleandoc(info.description or "")}
    if not info.is_required():
        given["default"] = _plain(info.get_default(call_default_factory=True))
    copy: Any = pydantic.Field(**given)
    copy.metadata = list(info.metadata)
    return copy


def _plain(default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(map(_plain, default))
    return literal(default) if isinstance(default, Config) else default


def _as_text(annotation: Any) -> Any:
    """The type of a field, with references to components for their settings."""
    if not component_types(annotation):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return _reference(candidates((annotation,)))
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[(_as_text(parts[0]), *parts[1:])]
    items = tuple(part if part is Ellipsis else _as_text(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return reduce(or_, items)
    return origin[items]


def _reference(names: list[str]) -> Any:
    """The type of a text that refers to one of these components."""
    scoped = Annotated[str, pydantic.Field(pattern=rf"^@(\w+/)+({'|'.join(names)})\(\)$")]
    return Literal[tuple(f"@{name}()" for name in names)] | scoped if names else scoped
