"""`rrl runs`: every folder is listed, quickly, truly, and readable on a narrow terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.report_runs import log, make_run, make_scored
from rich.console import Console

from rrl.registry import UserError
from rrl.report import listing
from rrl.store import results

KEYS = "id name folder task encoder agent method status reason started"
KEYS += " seed updates iterations steps seconds score best last5 sweep job"


def lines(root: Path, *names: str, **options: object) -> list[str]:
    said: list[str] = []
    listing.show(names, said.append, root=root, **options)  # type: ignore[arg-type]
    return "\n".join(said).split("\n")


def told(root: Path, *names: str, **options: object) -> list[dict[str, object]]:
    """What `--json` says, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = "\n".join(lines(root, *names, as_json=True, **options))
    found: list[dict[str, object]] = json.loads(text, parse_constant=refuse)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path, "aa01", seed=3)
    make_run(tmp_path, "bb01", "adroit_pen_mobilenetv2", status="STOPPED", reason="SIGTERM", started="2026-10-03T12:00")
    make_scored(tmp_path, "cc01", "dmc_cartpole_swingup_rad", {0: 10.0, 50_000: 812.34})
    return tmp_path


def test_newest_first_with_their_scores(root: Path) -> None:
    head, *rows = (line.split("\t") for line in lines(root))
    assert head == ["id", "name", "task", "method", "status", "steps", "score", "95 %", "of", "started", "reason"]
    assert [row[:2] for row in rows] == [
        ["bb01", "adroit_pen_mobilenetv2-seed0"],
        ["cc01", "dmc_cartpole_swingup_rad-seed0"],
        ["aa01", "adroit_door_state-seed3"],
    ]
    pen, cartpole, door = (dict(zip(head, row, strict=True)) for row in rows)
    assert (pen["method"], pen["status"], pen["reason"]) == (
        "MobileNetV2 (imagenet-deepsort) · DAPG",
        "stopped",
        "SIGTERM",
    )
    assert (cartpole["task"], cartpole["steps"], cartpole["score"]) == ("cartpole swingup", "50k", "812.3")
    assert (cartpole["95 %"], cartpole["of"]) == ("", "last")
    run = results.read(root / "aa01")
    assert door["score"] == f"{run.last('final/success'):.1f} %"
    assert door["95 %"] == f"{run.last('final/success_low'):.1f} to {run.last('final/success_high'):.1f}"
    assert door["of"] == "final"


def test_json_has_the_same_keys_for_every_run_and_no_nan(root: Path) -> None:
    rows = [(1000, {"train/success": 50.0, "summary/last5_success": float("nan"), "time/iteration": float("inf")})]
    log(make_run(root, "dd01"), rows)
    (root / "ee01").mkdir()
    (root / "ee01" / "run.json").write_text("[")
    found = told(root)
    assert len(found) == 5
    assert {tuple(run) for run in found} == {tuple(KEYS.split())}
    by_id = {run["id"]: run for run in found}
    assert (by_id["dd01"]["score"], by_id["dd01"]["last5"], by_id["dd01"]["seconds"]) == (None, None, 0)
    score = by_id["aa01"]["score"]
    assert isinstance(score, dict)
    assert set(score) == {"name", "unit", "value", "low", "high", "episodes", "of"}
    assert (by_id["aa01"]["seed"], by_id["aa01"]["iterations"], by_id["aa01"]["updates"]) == (3, 200, 6)


def test_a_killed_run_is_not_running(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "aa01", status="RUNNING")
    assert [run["status"] for run in told(tmp_path)] == ["stopped"]
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [run["status"] for run in told(tmp_path, status="running")] == ["running"]
        (folder / "run.json").unlink()  # it has only just begun
        assert [run["status"] for run in told(tmp_path)] == ["running"]


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("run.json", "{", "run.json is damaged"),
        ("run.json", None, "it has no run.json"),
        ("run.json", "{}", "lacks 'run_id'"),
        ("metrics.jsonl", '{"step": 1}\n', "metrics.jsonl, line 1 is damaged"),
        ("metrics.jsonl", '{"step": 1, "time": 1, "metrics": {"a": "b"}}\n', "metrics.jsonl, line 1 is damaged"),
        ("metrics.jsonl", "\x00\x00\n", "metrics.jsonl, line 1 is damaged"),
    ],
)
def test_a_damaged_folder_is_listed_with_the_reason(root: Path, file: str, text: str | None, reason: str) -> None:
    path = make_run(root, "dd01") / file
    path.unlink() if text is None else path.write_text(text)
    (damaged,) = told(root, status="damaged")
    assert damaged["id"] == "dd01"
    assert reason in str(damaged["reason"])
    assert len(lines(root)) == 5
    assert "damaged" in "\n".join(lines(root))


def test_filters_and_limit(root: Path) -> None:
    def ids(**options: object) -> list[object]:
        return [run["id"] for run in told(root, **options)]

    assert ids(task="DOOR") == ["aa01"]
    assert ids(method="dapg") == ["bb01", "aa01"]
    assert ids(method="mobilenet", status="stopped") == ["bb01"]
    assert ids(name="seed0", limit=1) == ["bb01"]
    assert [run["id"] for run in told(root, "aa", "cc01")] == ["cc01", "aa01"]
    (text,) = lines(root, task="kitchen")
    assert "none of the 3 runs" in text and "task pen, cartpole swingup, door" in text
    assert ids(task="kitchen") == []
    with pytest.raises(UserError, match="--status done: it is one of finished, stopped, failed, running, damaged"):
        ids(status="done")


def test_without_runs_it_says_how_to_make_one(tmp_path: Path) -> None:
    assert lines(tmp_path) == [f"there are no runs in {tmp_path}: {results.WHERE}"]
    assert told(tmp_path / "nowhere") == []


@pytest.mark.parametrize("width", [150, 100, 80, 60, 40])
def test_a_narrow_terminal_breaks_no_words(width: int, root: Path) -> None:
    make_run(root, "dd01", name="a_name_that_is_much_longer_than_any_column_can_be_without_a_very_wide_screen")
    (root / "bb01" / "run.json").write_text("{")
    here, there = pty.openpty()
    said: list[str] = []
    with os.fdopen(there, "w") as terminal:
        console = Console(file=terminal, width=width, force_terminal=True, highlight=False, record=True)
        listing.show([], said.append, root=root, console=console)
        text = console.export_text()
    os.close(here)
    shown = text.split("\n")
    assert max(map(len, shown)) <= width
    whole = {word for line in lines(root) for word in line.replace("\t", " ").split()} | {"method", "started"}
    for word in text.replace("─", " ").split():
        assert word in whole or word.endswith("…"), word
    for word in ("finished", "damaged", "aa01"):
        assert word in text, text
    assert ("MobileNetV2" in text or "DAPG" in text) == (width >= 100)
    assert any("bb01 is damaged:" in line for line in said)


def test_a_hundred_runs_take_less_than_two_seconds(tmp_path: Path) -> None:
    first = make_run(tmp_path / "runs", "id000", updates=200)
    for n in range(1, 100):
        copy = tmp_path / "runs" / f"id{n:03}"
        copy.mkdir()
        for file in first.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "rrl.cli", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(done.stdout.splitlines()) == 101, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
