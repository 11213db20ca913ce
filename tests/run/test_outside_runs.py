"""Runs on other packages' tasks, from their shipped files: learning, kill -9 and resume, reports, mistakes."""

from __future__ import annotations

import pytest
from helpers.stores import prepared
from test_resume import (
    assert_same,
    children_are_gone,
    command,
    descendants,
    finished,
    kill,
    outcome,
    run_folder,
    started,
)
from typer.testing import CliRunner

from rrl import cli
from rrl.run import process
from rrl.store import results

ONCE = ("EpisodeReturn.episodes = 1", "Video.episodes = 1", "Video.every = 4", "Experiment.threads = 1")
TOY = """
Experiment.env = @Gymnasium()
Gymnasium.id = 'helpers.gym_tasks:helpers/Toy-v0'
Gymnasium.kwargs = (('broken', 8),)
Experiment.encoder = @State()
Experiment.agent = @SAC()
Experiment.evaluators = ()
Experiment.iterations = 1
Experiment.num_envs = 2
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in."""
    monkeypatch.chdir(prepared(tmp_path))
    return tmp_path


def call(*arguments, code=0):
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def test_a_few_steps_from_pixels(here):
    """The shipped file with little but its length changed: real pictures, MobileNetV2, updates, report, video."""
    short = ("Experiment.iterations = 2", "Experiment.log_every = 20", "Gymnasium.horizon = 15")
    small = ("SAC.init_steps = 30", "SAC.batch = 8", "SAC.hidden = (32, 32)", *ONCE)
    assert process.start("gym_pusher_rrl_sac_mobilenetv2", [*short, *small], None, None) == 0
    reported(here, steps=40, title="Pusher-v5")


def reported(root, steps, title):
    """A run that is whole: rows to its last step, an update among them, a video, a page of `rrl report`."""
    rows = results.read(run_folder(root)).rows
    assert rows[-1].step == steps
    assert any("sac/critic_loss" in row.metrics for row in rows), sorted(rows[-1].metrics)
    (film,) = (run_folder(root) / "videos").glob("*.mp4")
    assert film.stat().st_size > 10_000
    call("report", "--out", "page.html")
    assert f"<h1>rrl report: {title}" in (root / "page.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("task", "title"),
    [
        ("gym_pusher", "Pusher-v5"),
        ("gym_kitchen", "FrankaKitchen-v1 microwave kettle"),
        ("metaworld_reach", "Meta-World/MT1 reach-v3"),
    ],
)
def test_5000_steps_from_pixels(here, task, title):
    """Minutes on idle cores each: 4,000 updates of networks of 1,024 units are most of it."""
    judged = ONCE if task == "gym_pusher" else ("SuccessRate.episodes = 1", "final/SuccessRate.episodes = 1", ONCE[-1])
    assert process.start(f"{task}_rrl_sac_mobilenetv2", ["Experiment.iterations = 5", *judged], None, None) == 0
    reported(here, steps=5_000, title=title)


COMMON = (
    "Experiment.iterations = 6",
    "Experiment.threads = 1",
    "Experiment.workers = 1",
    "Experiment.evaluators = (@EpisodeReturn(),)",
    "EpisodeReturn.episodes = 1",
    "Gymnasium.horizon = 30",
)
OWN = {
    "npg": ("Experiment.num_envs = 2", "NPG.trajectories = 4", "NPG.policy_hidden = (8, 8)", "NPG.value_batch = 16"),
    "state_sac": ("Experiment.log_every = 20", "Experiment.eval_every = 40", "SAC.init_steps = 30", "SAC.batch = 8")
    + ("SAC.hidden = (16, 16)",),
}


@pytest.mark.parametrize("method", ["npg", pytest.param("state_sac", marks=pytest.mark.slow)])
def test_killed_and_resumed_is_as_if_it_had_never_been(method, here):
    """kill -9 in a task of gymnasium's own; SAC's checkpoints lie within episodes, which are repeated."""
    parts = ["env/gym_pusher", "env/gym_state", "encoder/state", f"method/{method}"]
    (cut := here / "cut").mkdir()
    assert process.start(parts, [*COMMON, *OWN[method]], None, None) == 0

    def progressed():
        files = list((cut / "runs").glob("*/metrics.jsonl"))
        return bool(files) and files[0].read_text().count("\n") > 2

    sets = [part for setting in (*COMMON, *OWN[method]) for part in ("--set", setting)]
    running = started(cut, command("run", *parts, *sets), progressed)
    workers = descendants(running.pid)
    assert running.poll() is None, "the run ended before it was killed"
    kill(running)
    assert children_are_gone(workers)
    told = finished(command("resume", str(run_folder(cut))), cut)
    assert "resumed after" in told and "repeat" not in told
    assert_same(outcome(cut), outcome(here))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_raises_ends_a_run_with_its_own_words(here, workers):
    (here / "toy.gin").write_text(TOY + f"Experiment.workers = {workers}\n")
    told = call("run", "toy.gin", code=2)
    assert "failed in step 9 of the episode with seed" in told and "ValueError: the motor is on fire" in told
    assert "gym_tasks.py:" in told and "Traceback" not in told
