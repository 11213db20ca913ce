"""What pydantic refuses of a config, in this project's words, and what the user may have meant."""

from __future__ import annotations

import ast
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

import pydantic

from rrl.config.grammar import cut
from rrl.config.words import candidates, closest, component_types, literal, meant, type_words
from rrl.registry import Config, Mistake, UserError

_OWN_WORDS = ("value_error", "assertion_error", "config")
"""Kinds of pydantic error that a component's own validators raise: their messages are shown as they are."""

C = TypeVar("C", bound=Config)


def checked(config_type: type[C], settings: Mapping[str, Any]) -> C:
    """A config with these settings; UserError says what is wrong with them as the gin reader does."""
    try:
        return config_type.model_validate(dict(settings))
    except pydantic.ValidationError as error:
        raise UserError(refusals(error, config_type, settings)) from error


def refusals(error: pydantic.ValidationError, config_type: type[Config], settings: Mapping[str, Any]) -> str:
    """What pydantic refuses of a config that no gin file describes, in the gin reader's words."""
    name, fields = config_type.component.__name__, config_type.model_fields
    told: list[tuple[str, str]] = []
    for field, items in by_field(error).items():
        if own := own_words(name, field, items):
            told += [(mistake.message, mistake.hint) for mistake in own]
        elif field not in fields:
            told.append((f"{name} has no field {field}", meant(field, fields)))
        elif field in settings:
            told.append(refusal(config_type, field, dict(settings), f"{name}.{field}"))
        else:
            told.append((f"{name} needs {field}", f"it takes {type_words(fields[field].annotation)}"))
    return "\n".join(message + (f"\n  {hint}" if hint else "") for message, hint in told)


def by_field(error: pydantic.ValidationError) -> dict[str, list[Any]]:
    """What pydantic says of each field; "": of several together."""
    by_field: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        by_field.setdefault(str(item["loc"][0]) if item["loc"] else "", []).append(item)
    return by_field


def own_words(name: str, field: str, items: Sequence[Any]) -> list[Mistake]:
    """What a component's own validators say; none if pydantic speaks for itself."""
    own = next((item for item in items if item["type"] in _OWN_WORDS), None)
    if own is None and field:
        return []
    said = own or items[0]
    context = said.get("ctx", {})
    message = str(context.get("error", said["msg"]))
    if said["type"].startswith("model_"):
        message = f"{name} has settings with names; got something else"
    message = f"{name}.{field}: {message}" if field and name not in message else message
    first = Mistake(str(context.get("field", field)), message, str(context.get("hint", "")))
    return [first, *context.get("more", ())]  # several: see `registry.mistakes`


def refusal(config_type: type[Config], field: str, values: dict[str, Any], label: str) -> tuple[str, str]:
    """Message and hint for a value of the wrong type or outside the limits."""
    info, value = config_type.model_fields[field], values[field]
    accepted = component_types(info.annotation)
    better = (guess for guess in guesses(value, info.annotation) if fits(config_type, values, field, guess))
    hint = next((f"did you mean {literal(guess)}?" for guess in better), "")
    if isinstance(value, float) and not math.isfinite(value):
        hint = "numbers must be finite"
    verb = "must be"
    if accepted and not isinstance(value, (Config, tuple)):
        verb = "takes"
        close = closest(str(value), candidates(accepted))
        hint = hint or (f"did you mean @{close[0]}()?" if close else "components are written @Name()")
    return f"{label} {verb} {type_words(info.annotation, info.metadata)}; got {cut(literal(value))}", hint


def fits(config_type: type[Config], values: dict[str, Any], field: str, value: Any) -> bool:
    """Would the field take this value?"""
    whole = value if isinstance(value, tuple) else (value,)
    if component_types(config_type.model_fields[field].annotation) and any(isinstance(part, dict) for part in whole):
        return False  # a component's settings are no component
    try:
        config_type(**{**values, field: value})
    except pydantic.ValidationError as error:
        return not any(item["loc"][:1] == (field,) for item in error.errors())
    return True


def guesses(value: Any, annotation: Any) -> Iterator[Any]:
    """What the user may have meant by a refused value, most likely first."""
    if isinstance(value, str) and "\\" not in value:
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            yield ast.literal_eval(value)
        yield from closest(value, [option for option in _options(annotation) if isinstance(option, str)])
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
    elif isinstance(value, (bool, int, float)):
        yield str(value)
    if isinstance(value, tuple) and len(value) == 1:
        yield value[0]
    elif not isinstance(value, tuple):
        yield (value,)


def _options(annotation: Any) -> list[Any]:
    """All values of the Literals in a type."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [option for part in get_args(annotation) for option in _options(part)]
