"""Files that are whole or not there, and locks: crashes, kill -9, two processes."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rrl.registry import UserError
from rrl.store import files

RRL = Path(files.__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from rrl.store import files
with files.{what}(Path(sys.argv[1])) as held:
    {then}
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_grows_is_never_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "link").symlink_to(victim)
    for write in (
        lambda path: files.append(path, "more"),
        lambda path: files.extend(path, 0, b"other"),
        lambda path: files.cut(path, 0),
    ):
        with pytest.raises(OSError, match="symbolic links"):
            write(tmp_path / "link")
    files.write_text(tmp_path / "link", "a file now")
    assert victim.read_text() == "kept" and not (tmp_path / "link").is_symlink()
    files.append(tmp_path / "new", "a")
    files.append(tmp_path / "new", "b")
    assert (tmp_path / "new").read_text() == "ab"


def holder(what: str, path: Path, then: str = "pass") -> subprocess.Popen[str]:
    """Another process inside `files.locked(path)` or `files.writing(path)`."""
    command = [sys.executable, "-c", HOLD.format(what=what, then=then), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    """kill -9."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


# --- whole files ------------------------------------------------------------------------------------


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with files.writing(path) as file:
        file.write(b'{"x": 2}')
        file.flush()
        assert files.read_json(path) == {"x": 1}
    assert files.read_json(path) == {"x": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_on_the_way_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(error), files.writing(path) as file:
        file.write(b"half of the ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_leave_harms_nobody_and_does_not_pile_up(tmp_path: Path) -> None:
    path, other = tmp_path / "a[1].txt", tmp_path / "a[1].txt.b.txt"
    files.write_text(path, "old")
    for _ in range(2):
        ended(holder("writing", path, "held.write(b'half'); held.flush()"))
        assert len(list(tmp_path.glob("*.part"))) == 1  # the one before is gone
        assert path.read_text() == "old"
    files.write_text(other, "beside it")
    assert len(list(tmp_path.glob("*.part"))) == 1
    alive = holder("writing", path)
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.glob("*.part"))) == 1  # of the process that still writes
    ended(alive)
    files.write_text(path, "newer")
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a[1]"
    with files.making(path) as part:
        (part / "inside").mkdir()
        files.write_text(part / "inside" / "a.txt", "x")
        assert not path.exists()
    assert (path / "inside" / "a.txt").read_text() == "x"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), files.making(tmp_path / "new" / "b") as part:
            (part / "half").touch()
            raise error
    with pytest.raises(OSError), files.making(path) as part:  # somebody made one in the meantime: it stays
        (part / "other").touch()
    assert list(path.parent.iterdir()) == [path] and (path / "inside" / "a.txt").exists()
    for _ in range(2):
        ended(holder("making", tmp_path / "new" / "b", "(held / 'half').touch()"))
        assert len(list(path.parent.glob("b.*.part"))) == 1  # the one before is gone
    with files.making(tmp_path / "new" / "b"):
        pass
    assert not list(path.parent.glob("*.part"))


def test_a_folder_that_cant_be_written_is_an_oserror(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:  # nothing is closed to root but what is no folder
        folder = tmp_path / "file"
        folder.touch()
    for work in (lambda: files.write_text(folder / "a.txt", "x"), lambda: files.append(folder / "a.txt", "x")):
        with pytest.raises(OSError, match=r"a\.txt"):
            work()
    with pytest.raises(OSError), files.locked(folder / "lock", seconds=1):
        pass
    assert not files.busy(folder / "lock")


def test_text_is_added_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    files.append(path, "eins\n")
    files.append(path, "zwölf\n")
    files.cut(path, len("eins\n"))
    assert path.read_text() == "eins\n"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1'])
def test_what_is_no_json_object_reads_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    assert files.read_json(path) == {}
    path.write_text(text)
    assert files.read_json(path) == {}


# --- locks ------------------------------------------------------------------------------------------


def test_two_processes_and_a_lock_that_kill_9_frees(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not files.busy(path)
    other = holder("locked", path)
    assert files.busy(path)
    began = time.monotonic()
    with pytest.raises(UserError, match="stop it"), files.locked(path, seconds=0.3, refusal="wait for it or stop it"):
        pass
    assert 0.3 <= time.monotonic() - began < 5
    ended(other)
    assert not files.busy(path)
    with files.locked(path, seconds=0):
        assert files.busy(path)
        assert files.busy(path)  # looking takes nothing
    assert not files.busy(path)


def test_a_lock_is_freed_by_an_error_which_passes(tmp_path: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), files.locked(tmp_path / "lock"):
            raise error
    assert not files.busy(tmp_path / "lock")


def test_children_do_not_inherit_a_lock(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not files.busy(tmp_path / "lock")
    child.communicate(b"\n")


# --- the only place ---------------------------------------------------------------------------------


def test_nothing_else_locks_or_renames() -> None:
    ours = re.compile(
        r"\b(fcntl|filelock)\b|os\.(fsync|replace|rename)\(|\.(replace|rename)\([\w.]*(path|file)\b|\.part\b"
    )
    lines = [
        f"{path.relative_to(RRL)}:{number}: {line.strip()}"
        for path in sorted(RRL.rglob("*.py"))
        if path != Path(files.__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ours.search(line)
    ]
    assert not lines, "\n".join(lines)
