"""What a run says before it begins, and that saying it alone makes nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rrl.cli import app
from rrl.config import ginfile
from rrl.run import estimate, plan
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.run.speed import Speed

BROKEN = """
from torch import nn
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.input import Input
from rrl.encoders.weights import Pretrained
from rrl.registry import register


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = 2

    def forward(self, x):
        return x.mean((2, 3)) / self.wdth


@register
class Broken(FrozenEncoder):
    pretrained = (Pretrained("net", 3, Input(64, (0, 0, 0), (1, 1, 1)), learnt=False),)

    class Config(FrozenEncoder.Config):
        weights: None = None

    def make_network(self):
        return Net()
"""
FAST = Speed(startup=5.0, sampling=1e-2, learning=1e-3, memory=10**9, width=5216, files=10**6)


def experiment(source: str, *overrides: str) -> Experiment:
    config: Any = ginfile.load(source, list(overrides))
    return Experiment(resolve(config))


def told(run: Experiment, root: Path, budget: float | None = None, fast: Speed | None = FAST) -> str:
    return "\n".join(plan.lines(run, root, budget, fast, "as measured"))


def test_a_run_from_pixels(tmp_path: Path) -> None:
    run = experiment("quickstart")
    text = told(run, tmp_path, budget=7200.0)
    assert "plan: DAPG on adroit_door, seed 0" in text
    assert "protocol paper, reward sparse, look fast, episodes of 200 steps, judged by success" in text
    assert "pictures of top (224 px) through MobileNetV2" in text and "frozen, 1,280 features" in text
    assert "a state of 24 numbers, hand joints (24)" in text
    assert "demonstrations: 25 of adroit_door_paper, 5,000 steps" in text
    assert "10,000 environment steps at most, 2 updates of 25 episodes" in text
    assert "SuccessRate at the end, BlindControl at the end, Video at the end" in text
    cost = estimate.of_run(run.config, FAST)
    # 10,000 steps of training, 5,000 of demonstrations; 50 episodes of SuccessRate with one kind of action or both.
    rates = [e for e in run.config.evaluators if e.component.__name__ == "SuccessRate"]
    own = 5.0 + 0.01 * (15_000 + sum(e.steps(run.env) for e in rates)) + 0.001 * 10_000
    assert cost.seconds - cost.other == pytest.approx(own)
    assert cost.other == pytest.approx(0.01 * sum(e.steps(run.env) for e in run.config.evaluators if e not in rates))
    assert "and the warm start, BlindControl, Video on top; --budget stops it after 2 h 00 min" in text
    assert "(91 steps/s, 9% of it learning; as measured)" in text
    assert f"results: {tmp_path}/<id>/" in text


def test_a_run_that_learns_at_every_step(cartpole_rad: None, tmp_path: Path) -> None:
    text = told(experiment("dmc_cartpole_swingup_rad"), tmp_path)
    assert "learnt with the agent; no state" in text
    assert "demonstrations: none" in text
    assert "that repeat their action 8 times, judged by return" in text
    assert "500,000 environment steps, written down every 1,000" in text
    assert "EpisodeReturn 51 times, Video at the end" in text


@pytest.mark.parametrize("source", ["quickstart", "adroit_relocate_state", "adroit_pen_rlpd_state"])
def test_it_is_short(source: str, tmp_path: Path) -> None:
    said: list[str] = []
    run = experiment(source)
    for line in plan.lines(run, tmp_path, 3600.0, FAST, "measured now on this machine, which others keep busy"):
        said += plan.wrapped(line, plan.COLUMNS).split("\n")
    assert len(said) <= 15
    assert max(map(len, said)) <= 120


def test_what_there_is_too_little_of_is_told(tmp_path: Path) -> None:
    run = experiment("adroit_door_state")
    assert "WARNING" not in told(run, tmp_path)
    text = told(run, tmp_path, fast=Speed(5.0, 1e-2, 1e-3, 10**15, 100, 10**18))
    assert "that is more memory than is free" in text and "that is more disk than is free" in text


SMALL = (
    "Experiment.iterations = 2",
    "Experiment.num_envs = 2",
    "Experiment.workers = 0",
    "Experiment.threads = 1",
    "Experiment.evaluators = ()",
    "Adroit.horizon = 20",
    "DAPG.trajectories = 2",
    "DAPG.policy_hidden = (8,)",
    "DAPG.bc_epochs = 1",
    "DemoSet.episodes = 1",
)
SETS = [part for setting in SMALL for part in ("--set", setting)]


def test_few_steps_are_not_measured_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_CACHE", str(tmp_path))  # where nothing was measured before
    said: list[str] = []
    plan.tell(experiment("adroit_door_state", *SMALL), tmp_path, None, said.append)
    text = " ".join(" ".join(said).split())
    assert "not known yet (fewer than 20,000 steps aren't measured beforehand); updates tell the time left" in text
    assert not list(tmp_path.iterdir())


def test_a_dry_run_measures_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["run", "adroit_door_state", "--dry-run", *SETS], catch_exceptions=False)
    assert done.exit_code == 0
    assert not list(folder.iterdir())
    text = " ".join(done.output.split())
    assert re.search(r"time: about \d+ s, and the warm start on top \([\d,.]+ steps/s, \d+% of it learning", text), text
    assert "measured now on this machine" in text
    run = experiment("adroit_door_state", *SMALL)
    assert estimate.known(run.config) is not None
    said: list[str] = []
    plan.tell(run, folder, None, said.append)  # as `rrl run` does: known by now
    assert "measured before on this machine" in " ".join(said).replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("--set", "DAPG.gama = 1"), "DAPG has no field gama"),
        (("--set", "DAPG.trajectories = 2_000_000_000"), "of memory or more"),
        (("--set", "DemoSet.source = 'nowhere'"), "there is no file"),
    ],
)
def test_a_run_that_can_t_be_exits_2(
    overrides: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--dry-run",)):
        done = CliRunner().invoke(app, ["run", "adroit_door_state", *overrides, *more], catch_exceptions=False)
        assert done.exit_code == 2
        assert why in done.output
        assert "plan:" not in done.output
        assert not list(tmp_path.iterdir())


def test_a_dry_run_of_what_fails_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[rrl.components]\nbroken = broken\n")
    command = [sys.executable, "-m", "rrl", "run", "adroit_pen_mobilenetv2", "--dry-run"]
    sets = ["Experiment.encoder = @Broken()", "Experiment.workers = 1", "Experiment.num_envs = 2"]
    command += [part for text in sets for part in ("--set", text)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "a plugin's code failed: AttributeError: 'Net' object has no attribute 'wdth'" in said
    assert "broken.py:15, in forward return x.mean((2, 3)) / self.wdth" in said
    assert not list(tmp_path.glob("runs/*/run.json"))
