"""What files of JSON say, checked: by whoever reads what somebody else may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic

from rrl.registry import UserError


def parsed(text: str | bytes) -> Any:
    """The value that a text of JSON says. ValueError if it says none, or brackets stand deeper in each other than
    anybody writes them."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its brackets stand too deep in each other") from error


def misfit(schema: type[pydantic.BaseModel], values: object) -> str:
    """In words, the first of these values that is not as the schema has it; empty if all are."""
    try:
        schema.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return ""


def expect(schema: type[pydantic.BaseModel], values: object, path: Path, what: str) -> None:
    """UserError if the values of a file are not those of `what`, as the schema has them."""
    if found := misfit(schema, values):
        raise UserError(f"{path} is no {what} that rrl wrote: {found}")
