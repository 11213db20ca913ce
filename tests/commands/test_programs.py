"""The programs of docs/python.md, as processes of their own, and what programs may import."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.encoders import needs_wheel
from helpers.guides import ROOT, blocks
from PIL import Image

import rrl
from rrl.run import process

PUBLIC = {
    "EncodedObservation",
    "EncodedVectorObservation",
    "Experiment",
    "Inference",
    "LoadedPolicy",
    "UserError",
    "__version__",
    "load_policy",
    "train",
}
"""Whoever takes a name away breaks programs: docs/versions.md says how that is done."""

QUICKLY = {
    'task="door"': 'task="door", horizon=5',
    "trajectories=25": "trajectories=2, bc_epochs=1, policy_hidden=(8,)",
    "DemoSet.Config()": "DemoSet.Config(episodes=1)",
    "episodes=50": "episodes=2",
    "iterations=2": "iterations=1, workers=1, threads=1",
    "num_envs=25": "num_envs=2",
}


def python(*arguments, cwd):
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with the page's programs, smaller than they are there."""
    folder = tmp_path_factory.mktemp("programs")
    for block in blocks((ROOT / "docs" / "python.md").read_text()):
        name = re.match(r"# (\S+\.py)\n", block)[1]
        for here, quick in QUICKLY.items() if name == "train.py" else ():
            assert block.count(here) == 1
            block = block.replace(here, quick)
        (folder / name).write_text(block)
    assert {path.name for path in folder.iterdir()} == {"encode.py", "train.py", "act.py"}
    return folder


@needs_wheel
def test_encoding_pictures(programs):
    for name, value in (("a.png", 30), ("b.png", 200)):
        Image.fromarray(np.full((90, 120, 3), value, np.uint8)).save(programs / name)
    assert python("encode.py", "a.png", "b.png", cwd=programs).splitlines() == ["torch.Size([2, 1280])", "True"]


@needs_wheel
def test_training_without_a_gin_file(programs, monkeypatch):
    monkeypatch.setenv("RRL_CACHE", str(programs / "cache"))
    *said, last = python("train.py", cwd=programs).splitlines()
    folder, updates = last.split()
    assert updates == "1" and any("mean action: success" in line for line in said)
    assert "SuccessRate.episodes = 2" in (programs / folder / "config.gin").read_text()
    assert '"name": "train-seed0"' in (programs / folder / "run.json").read_text()
    rows = [json.loads(line) for line in (programs / folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 10]  # warm start, an update, the last word


@pytest.mark.slow
@needs_wheel
def test_resuming_what_a_program_began(programs, monkeypatch):
    monkeypatch.setenv("RRL_CACHE", str(programs / "cache"))
    folder = programs / python("train.py", cwd=programs).splitlines()[-1].split()[0]
    monkeypatch.chdir(programs)
    assert process.resume(folder.name, iterations=2) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 10, 20, 20]


def test_a_policy_acts(programs):
    said = python("act.py", "adroit_door_expert", cwd=programs)
    assert re.fullmatch(r"(seed \d: 200 steps, return \d+\.\d\n){3}", said)


def test_the_public_names():
    assert {*rrl.__all__} == PUBLIC
    for name in PUBLIC:
        assert getattr(rrl, name) is not None
    with pytest.raises(AttributeError, match=r"module 'rrl' has no attribute 'Experimint'"):
        rrl.Experimint  # noqa: B018
    page = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in PUBLIC - {"__version__"} if f"`rrl.{name}" not in page] == []
    typed = Path(__file__).with_name("typed_program.py").read_text()  # mypy's, in `make lint`
    assert [name for name in PUBLIC if f"rrl.{name}" not in typed] == []


def test_importing_rrl_imports_nothing_else(tmp_path):
    script = "import sys; before = {*sys.modules}; import rrl; print(*({*sys.modules} - before))"
    imported = {module.split(".")[0] for module in python("-c", script, cwd=tmp_path).split()}
    assert imported - sys.stdlib_module_names == {"rrl"}


def test_one_version(tmp_path):
    assert python("-m", "rrl", "--version", cwd=tmp_path) == f"rrl {rrl.__version__}\n"
    assert f"\nversion: {rrl.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {rrl.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_type_checkers_see_every_default():
    """Without pydantic's plugin they know `Field(default=0.9)` and take `Field(0.9)` for a field without one."""
    hidden = re.compile(r"^ +\w+: .* = Field\((?![a-z_]+=)", re.M)
    assert hidden.search("    gamma: float = Field(0.9, gt=0)") and not hidden.search("    a: int = Field(gt=0)")
    assert [path.name for path in (ROOT / "rrl").rglob("*.py") if hidden.search(path.read_text())] == []
