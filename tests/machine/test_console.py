"""What is printed is never needed, and bars are for terminals."""

import io
import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from rrl.machine.console import Display, Screen, is_live, optional_output, wrapped
from rrl.sweeps.table import Table

UPDATE = (
    "update 12/200  steps 480,000  train/success 32.0 %  return 900.1  KL 0.0252  2415 steps/s (learn 2, encode 0, "
    "act 0, waiting to simulate 4 and render 0 s)  ETA 35 min (23 s of it evaluating)"
)
FILES = "files: /home/somebody/experiments/of/the/year/runs/e657403841294dbc8ab441c67d8505b5-and-more-of-it"


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


@pytest.mark.parametrize("width", [80, 60, 40])
def test_lines_and_bars_on_a_narrow_terminal_break_no_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    here, there = pty.openpty()
    with os.fdopen(there, "w") as terminal:
        console = Console(file=terminal, width=width, height=24, record=True, highlight=False)
        display = Display(console)
        assert display.live
        display.line(UPDATE)
        display.line(FILES)
        said = console.export_text()
        display.expect(3600.4, 1200, ["BlindControl", "Video"])
        for name, total in (("update 12/200: sampling", 40_000), ("evaluating: SuccessRate", 0), ("warm start", 0)):
            display.phase(name, total)
            for count in (0, 1, 12_344):
                display._began -= 100
                display.advance(count)
                console.print(display._live.get_renderable())
        bars = console.export_text()
    os.close(here)
    assert said.split() == [*UPDATE.split(), *FILES.split()]
    *update, path = said.rstrip("\n").split("\n")
    assert max(map(len, [*update, *bars.split("\n")])) <= width
    assert FILES.split()[1] in path  # whole, however long
    known = "update 12/200: sampling evaluating: SuccessRate warm start of 40,000 steps left elapsed h min s ETA ... "
    known += "60 59 58 57 (20 it evaluating; BlindControl, Video not timed yet)"
    for word in bars.split():
        assert word in known.split() or re.fullmatch(r"[\d,]+|steps/s|[━─]+", word), word
    assert "?" not in bars
    if width >= 80:
        assert "12,345 of 40,000 steps" in bars and "min left" in bars and "elapsed" in bars


SCORED = "train/success 32.0 % (26 of 80; 95 %: 22.7 to 43.2)"


def test_success_so_far_stands_beside_the_end_of_the_run_where_there_is_room() -> None:
    display = Display(Console(file=io.StringIO()))
    display.phase("learning", 0)
    display.scored(SCORED)
    display.expect(720.4, 0)
    assert display.bars(100)[1:] == [f"{SCORED}  ETA 12 min"]
    assert display.bars(60)[1:] == [SCORED, "ETA 12 min"]
    narrow = display.bars(40)
    assert narrow[1:] == ["train/success 32.0 % (26 of 80; 95 ...", "ETA 12 min"]


def test_a_line_tells_news_alone_and_keeps_to_120_columns() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=80))
    display.expect(720.4, 180)
    display.phase("update 12/200: sampling", 40_000)
    display.scored(SCORED)
    for _ in range(2):
        display._printed -= 40
        display._began -= 40
        display.advance(10_000)
    first, more, second = file.getvalue().splitlines()
    assert first == "  update 12/200: sampling: 10,000 of 40,000 steps, 250 steps/s, 2 min left"
    assert more == f"    {SCORED}, ETA 12 min (3 min of it evaluating)"
    assert "train/success" not in second and second.endswith("ETA 12 min (3 min of it evaluating)")


def test_every_clock_has_a_name_and_no_total_is_no_total() -> None:
    display = Display(Console(file=io.StringIO()))
    display.phase("learning", 0)
    display._began -= 65
    assert display.bars(80) == ["learning  elapsed 65 s", ""]
    display.advance(650)
    assert display.bars(80) == ["learning  650 steps  10 steps/s  elapsed 65 s", ""]
    display.phase("evaluating", 2_000)
    display._began -= 100
    display.advance(500)
    line, _ = display.bars(120)
    assert line == "evaluating    500 of 2,000 steps  5 steps/s  elapsed 2 min  5 min left  " + 6 * "━" + 18 * "─"


def test_what_is_there_already_tells_nothing_of_the_speed() -> None:
    display = Display(Console(file=io.StringIO()))
    display.phase("evaluating", 2_000)
    display.skip(1_000)
    assert display.bars(60)[0].startswith("evaluating  1,000 of 2,000 steps  elapsed 0 s")
    display._began -= 100
    display.advance(90)  # a film among kept episodes
    assert "left" not in display.bars(120)[0]
    display.advance(410)
    assert "1,500 of 2,000 steps  5 steps/s  elapsed 2 min  2 min left" in display.bars(120)[0]
    display.phase("filming", 200)
    display._began -= 10
    display.advance(50)
    assert "5 steps/s" in display.bars(120)[0]


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ((0.0, 0.0), ""),
        ((0.4, 0.4), ""),
        ((720.0, 180.0), "ETA 12 min (3 min of it evaluating)"),
        ((240.0, 240.0), "ETA 4 min (evaluating)"),
        ((30.4, 0.0, ["Video"]), "ETA 30 s (Video not timed yet)"),
        ((30.4, 10.0, ["Blind", "Video"]), "ETA 30 s (10 s of it evaluating; Blind, Video not timed yet)"),
    ],
)
def test_the_end_of_the_run_in_words(expected: tuple[float, float], words: str) -> None:
    display = Display(Console(file=io.StringIO()))
    assert display.eta() == ""  # nothing is known
    display.expect(*expected)
    assert display.eta() == words
    display._end -= 1_000
    assert display.eta() == ""  # it should be over: no `0 s` that stands for minutes


def test_a_run_does_not_end_before_what_goes_on() -> None:
    display = Display(Console(file=io.StringIO()))
    display.phase("evaluating: SuccessRate", 10_000)
    display.expect(120.0, 120.0)
    display._began -= 100
    display.advance(2_500)  # in 100 seconds
    assert display.now().endswith("5 min left") and display.eta() == "ETA 5 min (2 min of it evaluating)"


def test_without_a_terminal_a_line_tells_the_run_s_end_too() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=80))
    display.expect(720.4, 180)
    display.phase("evaluating: SuccessRate", 20_000)
    display._printed -= 40
    display._began -= 40
    display.advance(4_000)
    assert file.getvalue() == (
        "  evaluating: SuccessRate: 4,000 of 20,000 steps, 100 steps/s, 3 min left, "
        "ETA 12 min (3 min of it evaluating)\n"
    )


def test_wrapping_leaves_lines_that_fit() -> None:
    assert wrapped("a  b\n\n  c", 80) == "a  b\n\n  c"
    assert wrapped("a" * 100, None) == "a" * 100


def test_warnings_are_told_in_their_own_words() -> None:
    """Not with the line of code that gave them; afterwards as before."""
    before = warnings.formatwarning
    with optional_output():
        text = warnings.formatwarning(UserWarning("50 samples are not two batches of 64"), UserWarning, "npg.py", 445)
    assert text == "note: 50 samples are not two batches of 64\n"
    assert warnings.formatwarning is before
