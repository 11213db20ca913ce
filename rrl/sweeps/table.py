"""What a sweep shows: one live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table as RichTable

from rrl.machine.console import PLAIN_PERIOD, duration, is_live
from rrl.sweeps.jobs import Entry

COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow", "waiting": "dim"}
PERIOD = 1.0  # seconds between looks at the runs' numbers


class Table:
    """The state of all jobs."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live = is_live(self.console)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._shown = self._printed = time.monotonic()
        self._last_line = ""
        self._rows: dict[Path, tuple[float, dict[str, Any]]] = {}
        """metrics.jsonl -> (when it was changed, its last row)."""

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
        table = RichTable(box=box.SIMPLE, pad_edge=False)
        scores = dict.fromkeys(entry.job.score.name for entry in entries)
        for name in ("run", "state", "update", " or ".join(scores) or "score", "this call", "left"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=name != "run")
        shown, hidden = list(entries), 0
        room = max(self.console.height - 6, 5)
        if not everything and len(shown) > room:  # what goes on comes first
            order = ["running", "failed", "waiting", "stopped", "finished"]
            shown = sorted(shown, key=lambda e: order.index(e.state))[:room]
            hidden = len(entries) - len(shown)
        for entry in shown:
            update, score, left = self._progress(entry)
            ran = entry.seconds or (time.monotonic() - entry.began if entry.state == "running" else 0.0)
            state = f"[{COLOURS[entry.state]}]{entry.state}[/]"
            table.add_row(escape(entry.job.name), state, update, score, duration(ran) if ran else "", left)
        if hidden:
            table.caption = f"and {hidden} more"
        return table

    def _progress(self, entry: Entry) -> tuple[str, str, str]:
        """(update, training score over the last five, time left) of a run."""
        row = self._last_row(entry.folder)
        total = entry.job.config.iterations
        done = int(row.get("iteration", 0))
        score = entry.job.score
        metric = score.metric("summary", "last5")
        left = ""
        if entry.state == "running" and done and "time/iteration" in row:
            left = duration((total - done) * row["time/iteration"])
        return (f"{done}/{total}" if row else ""), score.text(row[metric]) if metric in row else "", left

    def _last_row(self, folder: Path | None) -> dict[str, Any]:
        """The last row of an update (the final evaluation is no update)."""
        path = folder / "metrics.jsonl" if folder else None
        if path is None or not path.exists():
            return {}
        changed = path.stat().st_mtime
        if path not in self._rows or self._rows[path][0] != changed:
            row: dict[str, Any] = {}
            for line in reversed(path.read_text().splitlines()):
                try:
                    row = json.loads(line)["metrics"]
                except ValueError:  # being written
                    continue
                if "iteration" in row:
                    break
            self._rows[path] = (changed, row)
        return self._rows[path][1]
