"""What `rrl eval --with` keeps: nothing of one evaluation is lost to another, in folders and in MLflow."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.lines import Lines
from helpers.small_policies import PIXELS
from helpers.stores import prepared
from mlflow import MlflowClient
from typer.testing import CliRunner

from rrl.cli import app
from rrl.commands import policies as evaluation
from rrl.envs.scene import KINDS
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
