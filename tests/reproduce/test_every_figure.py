"""Every figure of `rrl reproduce` with real parts, all tiny: each is made, goes on, and says what it is worth."""

import dataclasses
from pathlib import Path

import pytest
from helpers.small_policies import PIXELS, saved
from helpers.stores import prepared
from plugins.encoder96 import Attention96  # noqa: F401 (registers it)
from typer.testing import CliRunner

from rrl.cli import app
from rrl.reproduce import command, runs
from rrl.reproduce.figures import FIGURES, Evaluation, Training
from rrl.sweeps import child

RUN = (
    "Experiment.iterations = 1",
    "Experiment.num_envs = 1",
    "Experiment.workers = 0",
    "Experiment.threads = 1",
    "Experiment.evaluators = ()",
    "Experiment.precision = 'fp32'",
    "Experiment.backend = 'torch'",
)
NPG = (
    "Experiment.agent = @NPG()",
    "Experiment.demos = None",
    "Adroit.horizon = 4",
    "NPG.trajectories = 2",
    "NPG.value_batch = 4",
)
STATE = (
    "Experiment.encoder = @State()",
    "State.blind = True",
    "Adroit.horizon = 10",
    "DAPG.trajectories = 2",
    "DAPG.bc_epochs = 1",
    "DAPG.value_batch = 4",
    "DemoSet.episodes = 1",
)
VAE = (
    "Pretraining.pictures = 64",
    "Pretraining.epochs = 1",
    "Pretraining.batch = 16",
    "Pretraining.held_out = 0.1",
    "Pretraining.num_envs = 1",
    "Pretraining.workers = 0",
    "Pretraining.threads = 1",
    "Pretraining.mixture = (0.0, 0.0, 0.0, 1.0)",
    "Adroit.horizon = 4",
    "VAE.size = 32",
    "VAE.latent = 8",
)
FERM = (
    "FERM.warm_start_updates = 1",
    "FERM.batch = 4",
    "FERM.hidden = (8,)",
    "FERM.replay = 400",
    "FERM.init_steps = 2000",
    "DemoSet.episodes = 1",
)
DISTRACTORS = (
    "VisualDistractors.kinds = ('object colour',)",
    "VisualDistractors.episodes = 1",
    "VisualDistractors.films = 0",
)
COMPUTE = (
    "ResNet.depth = 18",
    "DAPG.trajectories = 2",
    "Adroit.horizon = 4",
    "FERM.batch = 4",
    "Pretraining.batch = 4",
)
TINY = {
    "fig2": ("door", ("Experiment.agent = @NPG()", "Experiment.demos = None", "Adroit.horizon = 4")),
    "fig4": ("door", (*RUN, *STATE)),
    "fig5_left": ("", (*COMPUTE, "Experiment.backend = 'torch'")),
    "fig5_centre": ("door", DISTRACTORS),
    "fig5_right": ("hammer", DISTRACTORS),
    "fig6": ("door", (*RUN, *NPG, *VAE)),
    "fig7": ("door", (*RUN, *NPG)),
    "fig8": ("door", (*RUN, *NPG)),
    "fig9": ("door", (*RUN, *STATE)),
    "fig10": ("reacher", (*RUN, *FERM, "MJRL.horizon = 10", "DAPG.trajectories = 2", "NPG.trajectories = 2")),
    "fig11": ("door", VAE),
    "fig12": ("door", DISTRACTORS),
    "table1": ("cartpole_swingup", RUN),
}


class Here:
    """Does a sweep's runs in this process: a new Python for each would take the test's whole time."""

    jobs = cores_each = 1

    def __init__(self, jobs):
        pass

    def start(self, task, log):
        log.touch()
        code = child.do(task)

        class Done:
            def poll(self):
                return code

        return Done()

    def close(self):
        pass


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty one on a machine without network, with the policies of two runs of six steps."""
    monkeypatch.chdir(prepared(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")  # runs here would leave it set
    monkeypatch.setattr(runs, "Local", Here)
    monkeypatch.setitem(command.FIGURES, "fig5_left", dataclasses.replace(FIGURES["fig5_left"], repeats=1))
    for name in ("one", "two"):
        saved(tmp_path / f"{name}.safetensors", PIXELS.format(encoder="Attention96", evaluators=""), 24, 28)
    return tmp_path


def reproduced(figure, task, sets, *more, code=0):
    words = ["reproduce", figure, *(("--task", task) if task else ()), *more]
    for text in sets:
        words += ["--set", text]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("figure", FIGURES)
def test_it_is_made_and_goes_on(project, figure):
    known, (task, sets) = FIGURES[figure], TINY[figure]
    more = ("--run", "one.safetensors", "--run", "two.safetensors") if isinstance(known, Evaluation) else ()
    more += ("--budget", "20s") if "budget" in known.takes else ()
    said = reproduced(figure, task, sets, *more)
    expected = {
        "fig4": "NO VERDICT: the published curve begins at 40,000 steps",
        "fig5_left": "FERM about 5 times RRL(ResNet34)",
        "table1": "NO VERDICT: RAD on cartpole swingup at 100,000 environment steps: no run of ours",
    }
    assert expected.get(figure, "nothing to judge by: no numbers of this figure are published") in said
    made = {path: path.stat().st_mtime_ns for path in made_by(known)}
    assert made
    again = reproduced(figure, task, sets, *more)
    assert expected.get(figure, "nothing to judge by") in again
    assert {path: path.stat().st_mtime_ns for path in made_by(known)} == made, "something was made again"


def made_by(figure):
    """Files that must not be made a second time."""
    parts = {Training: ("*/metrics.jsonl",), Evaluation: ("evaluations/*/*/pieces/*",)}
    return [
        path for glob in parts.get(type(figure), ("figures/*.png", "*.safetensors")) for path in Path("runs").glob(glob)
    ]
