"""Report pages and tables, read back."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from rrl.report import tables
from rrl.report.groups import Report, collect
from rrl.report.write import write
from rrl.store import results


def report_of(root: Path) -> Report:
    return collect(results.find([], root))


def page_of(root: Path, **kwargs: object) -> str:
    write([], root / "report.html", lambda _: None, root=root, **kwargs)  # type: ignore[arg-type]
    return (root / "report.html").read_text()


class Parsed(HTMLParser):
    """Tags with attributes, and the text outside of style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rows_of(table: tables.Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]
