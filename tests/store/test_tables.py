"""CSV: what it holds comes back, and no spreadsheet computes any of it."""

import csv
import io

import pytest

from rrl.store import tables


def test_what_is_written_is_read_again():
    records = [{"a": 'x, "y"\nz', "b": -1.5}, {"a": None, "c": 2}, {"b": "", "a": "-1.5"}]
    text = tables.csv_of(["a", "b", "c"], records)
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert lines == [
        {"a": 'x, "y"\nz', "b": "-1.5", "c": ""},
        {"a": "", "b": "", "c": "2"},
        {"a": "-1.5", "b": "", "c": ""},
    ]
    assert "\r" not in text


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")'])
def test_text_is_never_a_formula(cell):
    text = tables.csv_of([cell, "b"], [{cell: "x", "b": cell}])
    ((head, _), (_, value)) = csv.reader(io.StringIO(text, newline=""))
    assert head == value == "'" + cell.replace("\r", "\n")


def test_a_column_that_is_not_there_is_a_fault_of_ours():
    with pytest.raises(ValueError, match="fields not in"):
        tables.csv_of(["a"], [{"b": 1}])
