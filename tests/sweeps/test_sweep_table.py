"""What a sweep shows of its runs: on narrow terminals too, with the time that evaluations take."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from helpers.report_runs import log
from rich.console import Console

from rrl.config import ginfile
from rrl.sweeps.jobs import Entry, Job
from rrl.sweeps.table import Table

TIMES = {"time/steps_per_second": 100.0, "time/sampling": 20.0, "time/update": 10.0, "time/simulate": 20.0}


def entry(folder: Path, name: str, state: str) -> Entry:
    """A run of 10 updates, two of them done: 30 s each, and 100 s of evaluation after each."""
    folder.mkdir()
    row = TIMES | {"time/iteration": 130.0, "eval/success": 50.0, "summary/last5_success": 97.5}
    log(folder, [(2_000 * n, row | {"iteration": n}) for n in (1, 2)])
    settings = ["Experiment.iterations = 10", "Experiment.evaluators = (@SuccessRate(),)"]
    config: Any = ginfile.load("adroit_door_state", settings)
    return Entry(Job(name, "adroit_door_state", {}, config), state=state, folder=folder, seconds=7_000.0)


def test_the_time_left_counts_evaluations(tmp_path: Path) -> None:
    running = entry(tmp_path / "a", "door-seed0", "running")
    assert Table(Console(file=io.StringIO()))._progress(running) == ("2/10", "97.5 %", "17 min")  # 8 * 130 s


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_a_narrow_terminal_breaks_no_words(width: int, tmp_path: Path) -> None:
    long = (
        "adroit_door_state-seed0-step_size-0.05-and-lam_0-0.02-and-more-that-no-terminal-has-room-for-it-at-all-really"
    )
    entries = [entry(tmp_path / "a", long, "running"), entry(tmp_path / "b", "short", "finished")]
    console = Console(file=io.StringIO(), width=width, record=True)
    Table(console).show(entries, last=True)
    text = console.export_text()
    assert max(map(len, text.split("\n"))) <= width
    known = {"run", "state", "update", "train/success", "this", "call", "left", "running", "finished", "short"}
    known |= {"2/10", "97.5", "%", "17", "min", "1", "h", "57"}
    for word in text.replace("─", " ").split():
        beginning, _, end = word.partition("…")
        assert word in known or (end and long.startswith(beginning) and long.endswith(end)), (
            word
        )  # jobs differ at the end
    assert "running" in text and "finished" in text and "short" in text
    assert ("17 min" in text) == (width >= 80)
