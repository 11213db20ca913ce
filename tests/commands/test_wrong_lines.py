"""Wrong gin files and command lines, as users write them: exactly what is wrong is told, where it stands and what to do
about it. `wrong_files.toml` has the files, `wrong_lines.toml` the lines; what gin's language itself refuses is in
`gin_mistakes.toml`."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing
from helpers.report_runs import make_run
from typer.main import get_command
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile

TABLES = [tomllib.loads((Path(__file__).parent / f"wrong_{kind}.toml").read_text()) for kind in ("files", "lines")]
WRONG: list[dict[str, Any]] = [wrong for table in TABLES for wrong in table["wrong"]]
RUNS = ("0123456789abcdef0123456789abcdef", "0123456fffffffff0123456789abcdef")
SHIPPED = ginfile.find("quickstart").parent
TEXT = "include 'adroit_door_state.gin'\n"


def npz(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, actions=array)
    return file.getvalue()


def tensors(numbers: int) -> bytes:
    """A safetensors file that says it had ten numbers."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * numbers)


CONTENTS = {
    "nothing": b"",
    "text": b"hello\n",
    "a picture": b"\x89PNG\r\n\x1a\n\xff\xfe\x00",
    "gzip": b"\x1f\x8b\x08\x00\x00abc",
    "UTF-16": (TEXT + "Experiment.seed = 3\n").encode("utf-16"),
    "UTF-16 without mark": (TEXT + "Experiment.seed = 3\n").encode("utf-16-le"),
    "Latin-1": (TEXT + "# gr\u00f6\u00dfer\n").encode("latin-1"),
    "half a character": TEXT.encode() + b"Adroit.task = '\xed\xa0\x80'\n",
    "other arrays": npz(np.zeros(3)),
    "objects": npz(np.array([{"a": 1}], dtype=object)),
    "cut arrays": npz(np.zeros(300))[:200],
    "other tensors": tensors(10),
    "cut tensors": tensors(2),
    "no header": b"\xff" * 100,
    "a pickle of code": b"cos\nsystem\n(S'echo hi'\ntR.",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two finished runs that saved no policy."""
    folder = tmp_path_factory.mktemp("finished")
    for run_id in RUNS:
        make_run(folder, run_id)
    return folder


@pytest.fixture(scope="module")
def _made_once():
    """The program's commands, which the runner would make anew for each line: half of the time."""
    command = get_command(cli.app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", lambda app: command)
        yield


def put(path: Path, what: str, runs: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if what in ("a run", "two runs"):
        for run_id in RUNS[: 1 if what == "a run" else 2]:
            shutil.copytree(runs / run_id, path / run_id)
    elif what == "a folder":
        path.mkdir()
    elif what.startswith("a link"):
        path.symlink_to(path.name if "itself" in what else "gone")
    else:
        path.write_bytes(CONTENTS[what])


def listed(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.name != "lock")


@pytest.mark.usefixtures("_made_once")
@pytest.mark.parametrize("wrong", WRONG, ids=[f"{wrong['kind']}: {wrong['name']}" for wrong in WRONG])
def test_what_is_wrong_is_told_exactly(tmp_path, monkeypatch, runs, wrong):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path.parent / "torch"))
    texts = wrong.get("files", {}) | ({"x.gin": wrong["text"]} if "text" in wrong else {})
    for name, text in texts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text.encode())
    for name, what in wrong.get("made", {}).items():
        put(Path(name), what, runs)
    before = listed(tmp_path)
    done = CliRunner().invoke(cli.app, shlex.split(wrong.get("line", "check x.gin")))
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    assert "Traceback" not in done.output and done.stderr.startswith("error: ")
    said = done.stderr.removeprefix("error: ").replace(f"{tmp_path}/", "").replace(f"{SHIPPED}/", "")
    problems = re.split(r"\n(?=\S)", said.rstrip())
    assert len(problems) == len(wrong["told"]), done.stderr
    for problem, (place, message, hint) in zip(problems, wrong["told"], strict=True):
        head, *rest = problem.split("\n")
        assert head.startswith(f"{place}: {message}" if place else message), problem
        assert any(hint in line for line in rest) if hint else True, problem
    assert listed(tmp_path) == before


def test_each_is_there_once():
    names = [(wrong["kind"], wrong["name"]) for wrong in WRONG]
    assert len(set(names)) == len(names) > 200
