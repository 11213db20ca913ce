"""What `rrl eval --with` keeps: nothing of one evaluation is lost to another, in folders and in MLflow."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from helpers.lines import Lines
from helpers.small_policies import PIXELS
from helpers.stores import prepared
from mlflow import MlflowClient
from typer.testing import CliRunner

from rrl.cli import app
from rrl.commands import policies as evaluation
from rrl.config.ginfile import ConfigError
from rrl.envs.scene import KINDS
from rrl.machine import console
from rrl.registry import UserError
from rrl.store import checkpoint

RUN = f"""{PIXELS.format(encoder="State", evaluators="")}
State.blind = True
NPG.trajectories = 2
NPG.value_batch = 4
Experiment.iterations = 1
Experiment.num_envs = 2
Experiment.workers = 0
Experiment.threads = 1
"""
FEW = {"episodes": 2, "noise": (0.1,), "noise_kinds": ("uniform noise",), "stuck": (), "delays": (2,)}
STEPS = 2 * 6
"""Of the run: two episodes of six."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run of one update."""
    project = prepared(tmp_path_factory.mktemp("project"))
    (project / "run.gin").write_text(RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        done = CliRunner().invoke(app, ["run", "run.gin"])
    assert done.exit_code == 0, done.output
    (found,) = project.glob("runs/*/run.json")
    return found.parent


@pytest.fixture
def run(trained, monkeypatch):
    """That folder, without evaluations, in the working folder; they are made in this process."""
    shutil.rmtree(trained / "evaluations", ignore_errors=True)
    monkeypatch.chdir(trained.parent.parent)
    monkeypatch.setattr(evaluation, "cores", lambda: 0)
    return Path("runs") / trained.name


def evaluated(run, seed=None, best=False, **settings):
    """(numbers, lines that were said)"""
    lines, overrides = Lines(), [f"SensorFaults.{name} = {value}" for name, value in {**FEW, **settings}.items()]
    found = evaluation.evaluate(str(run), lines, other="eval/sensors", overrides=overrides, seed=seed, best=best)
    return found, lines.lines


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def folders(run):
    return {path.parent for path in run.glob("evaluations/*/numbers.json")}


def test_another_evaluation_has_a_folder_and_metrics_of_its_own(run):
    own, said = evaluated(run)
    (first,) = folders(run)
    known = {first}
    assert evaluated(run)[0] == own and folders(run) == known  # the same command goes on in the same folder
    assert evaluated(run, seed=0)[0] == own and folders(run) == known  # 0 is the run's own
    before = contents(first)

    def another(**asked):
        found, _ = evaluated(run, **asked)
        (new,) = folders(run) - known
        known.add(new)
        assert json.loads((new / "numbers.json").read_text())["metrics"] == found
        return new

    others = [another(noise=(0.5,)), another(episodes=3), another(seed=7), another(best=True)]
    tensors, values = checkpoint.load_file(run / "policy.safetensors")
    original = (run / "policy.safetensors").read_bytes()
    checkpoint.save_file(run / "policy.safetensors", {name: t + 0.1 for name, t in tensors.items()}, values)
    trained_on = another()
    (run / "policy.safetensors").write_bytes(original)
    names = [path.name.rsplit("-", 1)[0] for path in (first, *others, trained_on)]
    assert len(set(names[:-1])) == 5 and names[-1] == names[0]  # the same question to another policy
    assert {path: path.read_bytes() for path in before} == before
    # Each question has its metrics; none has those of two.
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    assert f"MLflow: after/{names[0]}/... of run {run.name[:8]}; files: {first}" == said[-1]
    for name in dict.fromkeys(names):
        points = client.get_metric_history(run.name, f"after/{name}/sensors/nominal/success")
        assert len(points) == (4 if name == names[0] else 1)
        assert {point.step for point in points} == {0 if "_best" in name else STEPS}
    kept = client.list_artifacts(run.name, "evaluations")
    assert {Path(file.path).name for file in kept} == {path.name for path in known}


def test_questions_share_finished_episodes(run):
    """Also with folders of earlier versions, called by the file's name alone."""
    evaluated(run, episodes=1)
    (first,) = folders(run)
    shared = run / "evaluations" / "sensors" / "pieces"
    begun = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    assert len(begun) == 3
    (shared.parent / "numbers.json").write_text("of an earlier version")
    evaluated(run, episodes=1, stuck=("FFJ3",))
    after = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    assert len(after) == 4 and after.items() >= begun.items()
    assert (shared.parent / "numbers.json").read_text() == "of an earlier version" and first.exists()


def test_an_evaluator_that_would_overwrite_another_is_refused(run):
    Path("twice.gin").write_text(
        "Experiment.evaluators = (@a/SuccessRate(), @b/SuccessRate())\nb/SuccessRate.when = 'end'\n"
        "SuccessRate.episodes = 2\n"
    )
    with pytest.raises(UserError, match=r"twice\.gin binds SuccessRate twice .*write over the other's numbers"):
        evaluation.evaluate(str(run), Lines(), other="twice.gin")
    assert not (run / "evaluations").exists()


def test_what_no_evaluator_uses_is_refused_where_it_stands(run):
    """In the file itself; files that it includes, whole runs too, may bind more."""
    Path("mine.gin").write_text(
        "include 'run.gin'\nExperiment.evaluators = (@SensorFaults(),)\nAdroit.joint_noise = 0.0\n"
        "SensorFaults.episodes = 2\nExperiment.seed = 4\nVideo.episodes = 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        evaluation.evaluate(str(run), Lines(), other="mine.gin", overrides=["Adroit.joint_delay = 0"])
    assert {(problem.where, problem.message) for problem in caught.value.problems} == {
        ("mine.gin:3", "nothing uses Adroit.joint_noise"),
        ("mine.gin:5", "nothing uses Experiment.seed"),
        ("mine.gin:6", "nothing uses Video.episodes"),
        ('--set "Adroit.joint_delay = 0"', "nothing uses Adroit.joint_delay"),
    }
    assert "eval/sensors" in caught.value.problems[0].hint
    assert not (run / "evaluations").exists()
    # What an override takes the place of was used.
    Path("mine.gin").write_text(
        "include 'run.gin'\nExperiment.evaluators = (@SensorFaults(),)\nSensorFaults.episodes = 2\n"
    )
    other = ["Experiment.evaluators = (@SuccessRate(),)", "SuccessRate.episodes = 2"]
    assert evaluation.evaluate(str(run), Lines(), other="mine.gin", overrides=other)["episodes"] == 2


def test_settings_without_a_file_are_told_where_they_belong(run):
    done = CliRunner().invoke(app, ["eval", str(run), "--set", "Adroit.joint_noise = 0.0"])
    assert (
        done.exit_code == 2 and "`--with eval/sensors --set" in done.output and "none of a run that has" in done.output
    )


class Terminated(Lines):
    """A screen during which SIGTERM comes after so many steps."""

    steps, said = 30, ()

    def __init__(self):
        super().__init__()
        Terminated.said = self.lines

    def advance(self, steps):
        super().advance(steps)
        if self._done > self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("more", "then"), [(["--with", "eval/sensors"], "the same command goes on"), ([], "nothing of it is kept")]
)
def test_a_signal_ends_it_with_a_line(run, monkeypatch, more, then):
    """Real, and with the exit code of `rrl run`."""
    settings = [f"SensorFaults.{name} = {value}" for name, value in FEW.items()] if more else []
    command = ["eval", str(run), *more, *(part for text in settings for part in ("--set", text))]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(console, "Display", Terminated)
            stopped = CliRunner().invoke(app, command)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.exit_code == 143 and Terminated.said[-1] == f"stopped; {then}"
    if more:
        pieces = run / "evaluations" / "sensors" / "pieces"
        kept = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
        assert len(kept) == 2
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert kept.items() < {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}.items()


def test_kept_episodes_are_skipped_not_made(run):
    evaluated(run)
    counted = Lines()
    made, skipped = [], []
    counted.advance, counted.skip = made.append, skipped.append
    overrides = [f"SensorFaults.{name} = {value}" for name, value in {**FEW, "delays": (2, 3)}.items()]
    evaluation.evaluate(str(run), counted, other="eval/sensors", overrides=overrides)
    assert (sum(skipped), sum(made)) == (3 * STEPS, STEPS)


def test_what_a_run_gets_stands_beside_its_own(run):
    settings = ("VisualDistractors.episodes = 3", "VisualDistractors.films = 0")
    evaluation.evaluate(str(run), Lines(), other="eval/distractors", overrides=settings)
    assert MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").get_run(run.name).info.status == "FINISHED"
    (folder,) = folders(run)
    (question, _) = folder.name.rsplit("-", 1)
    # Who sees nothing does the same whatever there is to see.
    metrics = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").get_run(run.name).data.metrics
    returns = [metrics[f"after/{question}/distractors/{kind.replace(' ', '_')}/change"] for kind in KINDS]
    assert returns == [0.0] * len(KINDS)
    kept = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").list_artifacts(
        run.name, f"evaluations/{folder.name}/pictures"
    )
    assert {Path(file.path).suffix for file in kept} == {".png", ".svg", ".csv"}
