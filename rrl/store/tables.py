"""CSV files for people's programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""What makes a spreadsheet compute a cell of text."""


def csv_of(columns: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """A head, and a line for each record; None and what a record lacks are empty. Text that a spreadsheet would take
    for a formula, such as a run's name out of a stranger's folder, begins with an apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [_inert(column) for column in columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({_inert(name): _inert(value) for name, value in record.items()} for record in records)
    return out.getvalue()


def _inert(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # which the writer doesn't quote
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
