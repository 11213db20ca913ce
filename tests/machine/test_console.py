"""What is printed is never needed, and bars are for terminals."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rrl.machine.console import Display, Screen, is_live, optional_output
from rrl.sweeps.table import Table


class Broken(io.StringIO):
    """Takes two writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 2:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_the_first_failed_write_turns_printing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken()
    monkeypatch.setattr(sys, "stdout", stream)
    with optional_output():
        display = Display()
        for n in range(5):
            display.line(f"line {n}")
        print("and this")
    assert sys.stdout is stream
    assert stream.getvalue() == "line 0\nline 1\n"
    assert stream.writes == 3


def test_closed_and_narrow_streams_end_nothing() -> None:
    closed = io.StringIO()
    closed.close()
    screen = Screen(closed)
    assert screen.write("a") == 1
    screen.flush()
    assert not screen.isatty()
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen(narrow).write("Señor ━")
    narrow.flush()
    assert narrow.buffer.getvalue() == rb"Se\xf1or \u2501"  # type: ignore[attr-defined]


@pytest.mark.parametrize("redirect", ["> /dev/full 2>&1", ">&- 2>&-", "2>&1 | true"])
def test_the_exit_code_is_the_work_s(redirect: str) -> None:
    program = (
        "import sys, time; from rrl.machine.console import *\n"
        "with optional_output():\n"
        "    time.sleep(0.2); print('words'); print('more', file=sys.stderr)\n"
        "    Display().line('and more')\n"
        "sys.exit(7)\n"
    )
    script = f'"$0" -c "$1" {redirect}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, sys.executable, program], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")


def test_bars_are_for_terminals_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "log.txt").open("w+") as file:
        console = Console(file=file, highlight=False)
        with Display(console) as display:
            display.phase("sampling", 100)
            for _ in range(50):
                display.advance(2)
            display.line("update 1/1")
        with Table(console) as table:
            table._shown = table._printed = -1e9
            table.show([])
        assert not table.live
        file.seek(0)
        text = file.read()
    assert "update 1/1" in text
    assert "\x1b" not in text
    here, there = pty.openpty()
    with os.fdopen(there, "w") as terminal:
        assert is_live(Console(file=terminal))
        assert Display(Console(file=terminal)).live
        monkeypatch.setenv("TERM", "dumb")
        assert not is_live(Console(file=terminal))
    os.close(here)
