"""What a sweep shows: one live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table as RichTable

from rrl.machine.console import PLAIN_PERIOD, duration, is_live
from rrl.registry import build
from rrl.run.pace import Pace
from rrl.store.schema import text_of
from rrl.store.tracking import Row, row_of
from rrl.sweeps.jobs import Entry

COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow", "waiting": "dim"}
SHORTEST = 12  # characters of a name that is cut
PERIOD = 1.0  # seconds between looks at the runs' numbers


class Table:
    """The state of all jobs."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live = is_live(self.console)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._shown = self._printed = time.monotonic()
        self._last_line = ""
        self._rows: dict[Path, tuple[float, list[Row]]] = {}
        """metrics.jsonl -> (when it was changed, its rows)."""

    def __enter__(self) -> Table:
        if self.live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(escape(text))

    def show(self, entries: Sequence[Entry], *, last: bool = False) -> None:
        """Draw the table, about once a second; without a terminal a line when it changes, at most every half
        minute. `last`: the whole table, to stay."""
        now = time.monotonic()
        if last:
            self.console.print(self._table(entries, everything=True))
        elif self.live and now - self._shown > PERIOD:
            self._shown = now
            self._live.update(self._table(entries, everything=False), refresh=True)
        elif not self.live and now - self._printed > PLAIN_PERIOD:
            self._printed = now
            counts = [f"{n} {state}" for state in COLOURS if (n := sum(e.state == state for e in entries))]
            running = [f"{e.job.name} {self._progress(e)[0]}" for e in entries if e.state == "running"]
            text = f"  {', '.join(counts)}: {'; '.join(running)}"
            if text != self._last_line:  # an update may take minutes
                self._last_line = text
                self.line(text)

    def _table(self, entries: Sequence[Entry], *, everything: bool) -> RichTable:
        scores = dict.fromkeys(entry.job.score.metric("train") for entry in entries)
        names = ["run", "state", "update", " or ".join(scores) or "score", "this call", "left"]
        shown, hidden = list(entries), 0
        room = max(self.console.height - 6, 5)
        if not everything and len(shown) > room:  # what goes on comes first
            order = ["running", "failed", "waiting", "stopped", "finished"]
            shown = sorted(shown, key=lambda e: order.index(e.state))[:room]
            hidden = len(entries) - len(shown)
        rows = [self._row(entry) for entry in shown]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        table = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        # Where the terminal is narrow, names are cut, and columns from the right left out, never a word broken.
        kept = len(names)
        while kept > 2 and min(widths[0], SHORTEST) + sum(widths[1:kept]) + 2 * kept > self.console.width:
            kept -= 1
        widths[0] = max(min(widths[0], self.console.width - sum(widths[1:kept]) - 2 * kept), SHORTEST)
        for n, (name, width) in enumerate(zip(names[:kept], widths, strict=False)):
            table.add_column(name, justify="left" if n < 2 else "right", no_wrap=True, overflow="ellipsis", width=width)
        for name, state, *texts in rows:
            table.add_row(escape(_fitting(name, widths[0])), f"[{COLOURS[state]}]{state}[/]", *texts[: kept - 2])
        if hidden:
            table.caption = f"and {hidden} more"
        return table

    def _row(self, entry: Entry) -> tuple[str, str, str, str, str, str]:
        update, score, left = self._progress(entry)
        ran = entry.seconds or (time.monotonic() - entry.began if entry.state == "running" else 0.0)
        return entry.job.name, entry.state, update, score, duration(ran) if ran else "", left

    def _progress(self, entry: Entry) -> tuple[str, str, str]:
        """(update, training score over the last five, time left) of a run."""
        config, score = entry.job.config, entry.job.score
        rows = self._read(entry.folder)
        row = rows[-1].metrics if rows else {}
        done, left = int(row.get("iteration", 0)), ""
        metric = score.metric("summary", "last5")
        if entry.state == "running" and done:
            pace = Pace(config, build(config.env))
            pace.read(rows)
            evaluated = max((r.step for r in rows if any(name.startswith("eval/") for name in r.metrics)), default=0)
            expected = pace.left(done, rows[-1].step, evaluated)
            if expected.seconds >= 1:
                left = ("over " if expected.untimed else "") + duration(expected.seconds)
        text = score.text(row[metric]) if metric in row else ""
        return (f"{done}/{config.iterations}" if rows else ""), text, left

    def _read(self, folder: Path | None) -> list[Row]:
        """The rows of a run up to its last update (the final evaluation is no update)."""
        path = folder / "metrics.jsonl" if folder else None
        if path is None or not path.exists():
            return []
        changed = path.stat().st_mtime
        if path not in self._rows or self._rows[path][0] != changed:
            rows = []
            with suppress(ValueError):  # the last one may be being written
                for line in text_of(path).splitlines():
                    rows.append(row_of(line))
            updates = [n for n, row in enumerate(rows) if "iteration" in row.metrics]
            self._rows[path] = (changed, rows[: updates[-1] + 1] if updates else rows)
        return self._rows[path][1]


def _fitting(name: str, width: int) -> str:
    """A name cut in its middle: jobs differ in their ends."""
    if len(name) <= width:
        return name
    end = (width - 1) * 2 // 3
    return f"{name[: width - 1 - end]}…{name[-end:]}"
