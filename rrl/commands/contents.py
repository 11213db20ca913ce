"""`rrl list files`: the shipped gin files as a table of contents, as their headers tell it: by the paper's figures and
tables, the rest by folder and family."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrl.config import ginfile
from rrl.machine import terminal
from rrl.registry import ROOTS

PARTS = "parts of runs"
FIGURE = re.compile(r"\b(figure|table)s? (\d+)(?: and (\d+))?(?!\.?\d)", re.IGNORECASE)
COLUMNS = ((30, 0.5), (20, 0.3), (16, 0.2))
"""What a file is, what is expected of it, what it costs: of each the fewest columns that say anything, and its share of
the width."""
PARAGRAPH = 100
"""Columns of names without their headers."""


@dataclass(frozen=True)
class Header:
    """What a gin file says of itself before its first line."""

    name: str
    what: str
    expected: str
    cost: str

    @property
    def figures(self) -> list[str]:
        """The figures and tables of the paper that it names: `figure 4`, `table 1`."""
        return [f"{kind.lower()} {n}" for kind, *ns in FIGURE.findall(self.what) for n in ns if n]


def header(name: str, path: Path) -> Header:
    """The comment at the top of a gin file: its first paragraph, and those that begin with `Expected:` and `Cost:`."""
    said, key = {"what": ""}, "what"
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").removeprefix(" ")
        if begins := re.match(r"([A-Z]\w+): (.*)", text):
            key, text = begins[1], begins[2]
        elif key != "what" and not text.startswith(" "):
            key = "rest"
        said[key] = f"{said.get(key, '')} {text.strip()}".strip()
    return Header(name, said["what"], said.get("Expected", ""), said.get("Cost", ""))


def groups() -> dict[str, list[Header]]:
    """The shipped files by what they belong to; a file that names two figures stands below both."""
    parts = set(ginfile.fragments())
    belonging: dict[str, list[Header]] = {}
    for name, path in ginfile.shipped().items():
        each = header(name, path)
        folder = name.rpartition("/")[0]
        family = folder or name.split("_")[0]
        belongs = [f"{PARTS}, {folder}"] if name in parts else each.figures or [family]
        for group in dict.fromkeys(belongs):
            belonging.setdefault(group, []).append(each)
    return dict(sorted(belonging.items(), key=_order))


def _order(group: tuple[str, list[Header]]) -> tuple[int, int, str]:
    """Figures, tables, families, folders, parts."""
    title, files = group
    if number := FIGURE.fullmatch(title):
        return (0 if number[1] == "figure" else 1), int(number[2]), title
    folder = "/" in files[0].name
    return (4 if title.startswith(PARTS) else 3 if folder else 2), 0, title


def show(line: Callable[[str], None], width: int | None = None) -> None:
    """Print a line for each file. `width`: columns of the screen; None: of the terminal, or where there is none, all of
    the headers, with tabs between."""
    width = width or terminal.width()
    for text in _use():
        line(text)
    for title, files in groups().items():
        line("")
        line(f"{title}:")
        for row in _rows(files, width):
            line(row)


def show_names(line: Callable[[str], None]) -> None:
    """Print the names alone, a paragraph for each group."""
    for text in _use():
        line(text)
    for title, files in groups().items():
        names = ", ".join(each.name for each in files)
        line(
            textwrap.fill(
                f"{title}: {names}",
                PARAGRAPH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def _use() -> Iterator[str]:
    """How the files are used: a folder is called as the command that takes its files."""
    folders = {name.split("/")[0] for name in ginfile.shipped() if "/" in name}
    first, *others = ROOTS.values()
    uses = [f"rrl {command} NAME" for command in others if folders & {command, f"{command}s"}]
    yield f"gin files: rrl {first} NAME, or as their folder is called {', '.join(uses)}"
    yield f"{PARTS} are combined: rrl run env/X encoder/Y method/Z; the last wins, a method may bring an encoder;"
    yield "eval/ is for finished runs too: rrl eval RUN_OR_FILE --with eval/X"


def _rows(files: Sequence[Header], width: int | None) -> Iterator[str]:
    if width is None:
        for each in files:
            yield "\t".join((f"  {each.name}", each.what, each.expected, each.cost)).rstrip()
        return
    names = max(len(each.name) for each in files) + 2
    texts = [(each.what, each.expected, each.cost) for each in files]
    kept = [n for n in range(len(COLUMNS)) if any(row[n] for row in texts)]
    while len(kept) > 1 and sum(COLUMNS[n][0] + 2 for n in kept) > width - names:
        kept.pop()
    spare = width - names - sum(COLUMNS[n][0] + 2 for n in kept)
    whole = sum(COLUMNS[n][1] for n in kept)
    widths = [max(COLUMNS[n][0] + int(spare * COLUMNS[n][1] / whole), 8) for n in kept]
    for each, row in zip(files, texts, strict=True):
        cells = [_shortened(row[n], size).ljust(size) for n, size in zip(kept, widths, strict=True)]
        yield "  ".join((f"  {each.name}".ljust(names), *cells)).rstrip()


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 4].rstrip()} ..."
