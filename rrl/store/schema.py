"""What files of JSON say, checked: by whoever reads what somebody else may have written."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pydantic

from rrl.registry import UserError

LARGEST = 2**28
"""Bytes of a text: the metrics of a training that took a year."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""What may be half a character: no text that is written holds one."""


def text_of(path: Path) -> str:
    """The text of a file. OSError; ValueError where it is no text, no plain file (a pipe or a device never ends), or
    larger than `LARGEST`."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path.name} is no plain file")
    if about.st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST:,} bytes")
    return path.read_text()


def parsed(text: str) -> Any:
    """The value that a text of JSON says. ValueError if it says none, or what nobody writes: brackets too deep in each
    other, halves of characters."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("its brackets stand too deep in each other") from error
    if _HALF.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def misfit(schema: type[pydantic.BaseModel], values: object) -> str:
    """In words, the first of these values that is not as the schema has it; empty if all are."""
    try:
        schema.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "missing":
            return f"it lacks {'.'.join(map(str, first['loc']))!r}"
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return ""


def expect(schema: type[pydantic.BaseModel], values: object, path: Path, what: str) -> None:
    """UserError if the values of a file are not those of `what`, as the schema has them."""
    if found := misfit(schema, values):
        raise UserError(f"{path} is no {what} that rrl wrote: {found}")
