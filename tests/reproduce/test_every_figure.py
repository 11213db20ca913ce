"""Every figure of `rrl reproduce` with real parts, all tiny: each is made, goes on, and says what it is worth."""

import dataclasses
from pathlib import Path

import pytest
from helpers.small_policies import PIXELS, saved
from helpers.stores import prepared
from plugins.encoder96 import Attention96  # noqa: F401 (registers it)
from typer.testing import CliRunner

from rrl.bench import compute
from rrl.cli import app
from rrl.commands import policies
from rrl.registry import UserError
from rrl.reproduce import chart, command, runs
from rrl.reproduce.figures import FIGURES, Compute, Evaluation, Look, Reconstruction, Sheet, Training, Wanted
from rrl.store import results
from rrl.sweeps import child

FAST = "Adroit.look = 'fast'"
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
    FAST,
    "NPG.trajectories = 1",
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
    "Pretraining.pictures = 24",
    "Pretraining.epochs = 1",
    "Pretraining.batch = 8",
    "Pretraining.held_out = 0.2",
    "Pretraining.num_envs = 1",
    "Pretraining.workers = 0",
    "Pretraining.threads = 1",
    "Pretraining.mixture = (0.0, 0.0, 0.0, 1.0)",
    "Adroit.horizon = 4",
    FAST,
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
)
BLIND = PIXELS.format(encoder="State", evaluators="") + "State.blind = True\n"
TINY: dict[str, tuple[str, tuple[str, ...]]] = {
    "fig2": ("door", ("Experiment.agent = @NPG()", "Experiment.demos = None", "Adroit.horizon = 4", FAST)),
    "fig4": ("door", (*RUN, *STATE)),
    "fig5_left": ("", (*COMPUTE, "Experiment.backend = 'torch'")),
    "fig5_centre": ("door", DISTRACTORS),
    "fig5_right": ("hammer", DISTRACTORS),
    "fig6": ("door", (*dict.fromkeys((*RUN, *NPG, *VAE)),)),
    "fig7": ("door", (*RUN, *NPG)),
    "fig8": ("door", (*RUN, *NPG)),
    "fig9": ("door", (*RUN, *STATE)),
    "fig10": ("reacher", ("Experiment.iterations = 0", *RUN[1:], *FERM, "MJRL.look = 'fast'")),
    "fig11": ("door", VAE),
    "fig12": ("door", DISTRACTORS),
    "table1": ("cartpole_swingup", (*RUN, "DMControl.action_repeat = 100")),
}
FEW = {"fig8": (1, 2), "fig9": (1, 2), "fig10": (0, 1), "table1": (1, 5)}
"""Of curves that run like others some are enough; `test_figures_and_sweeps_name_the_same_runs` reads all of them."""


AGAIN = {
    Look: ("drawn already: ",),
    Compute: ("measured already: ",),
    Reconstruction: ("trained: ", "reconstructions: "),
}
"""What is told of figures that are there."""


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
    """An empty one on a machine without network, with the policies of three runs of six steps."""
    monkeypatch.chdir(prepared(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")  # runs here would leave it set
    monkeypatch.setattr(runs, "Local", Here)
    monkeypatch.setattr(compute, "SHIPPED", {name: compute.SHIPPED[name] for name in ("RRL(ResNet34)", "FERM")})
    monkeypatch.setattr(policies, "cores", lambda: 0)  # no worker processes
    text = PIXELS.format(encoder="Attention96", evaluators="") + "Experiment.num_envs = 1\nExperiment.threads = 1\n"
    for name in ("one", "two"):
        saved(tmp_path / f"{name}.safetensors", text, 24, 28)
    saved(tmp_path / "hammer.safetensors", text.replace("adroit_door", "adroit_hammer"), 24, 26)
    return tmp_path


def reproduced(figure, task, sets, *more, code=0):
    words = ["reproduce", figure, *(("--task", task) if task else ()), *more]
    for text in sets:
        words += ["--set", text]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


SLOW = ("fig2", "fig6", "fig7", "fig8", "fig9", "fig10")
"""Made as others are: of runs, and of policies."""


@pytest.mark.parametrize("figure", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in FIGURES])
def test_it_is_made_and_goes_on(project, figure, monkeypatch):
    known, (task, sets) = FIGURES[figure], TINY[figure]
    if figure in FEW:
        known = dataclasses.replace(known, wanted=tuple(known.wanted[n] for n in FEW[figure]))
        monkeypatch.setitem(FIGURES, figure, known)
    more = ("--budget", "1h") if "budget" in known.takes else ()
    more += ("--repeats", "1") if "repeats" in known.takes else ()
    if isinstance(known, Evaluation):
        files = ("hammer",) if task == "hammer" else ("one", "two")
        more = [word for name in files for word in ("--run", f"{name}.safetensors")]
    said = reproduced(figure, task, sets, *more)
    expected = {
        "fig4": "NO VERDICT: the published curve begins at 40,000 steps",
        "fig5_left": "FERM about 5 times RRL(ResNet34)",
        "table1": "NO VERDICT: RAD on cartpole swingup at 100,000 environment steps: no run of ours",
    }
    if "repeats" in known.takes:
        assert "runs: 2, turns: 1; about " in said and "2 of 2: FERM" in said
    assert expected.get(figure, "nothing to judge by: no numbers of this figure are published") in said
    made = {path: path.stat().st_mtime_ns for path in made_by(known)}
    assert made
    again = reproduced(figure, task, sets, *more)
    for words in AGAIN.get(type(known), ()):
        assert words in again
    assert expected.get(figure, "nothing to judge by") in again
    assert {path: path.stat().st_mtime_ns for path in made_by(known)} == made, "something was made again"


def made_by(figure):
    """Files that must not be made a second time."""
    parts = {Training: ("*/metrics.jsonl",), Evaluation: ("evaluations/*/*/pieces/*",)}
    parts[Sheet] = parts[Evaluation]
    return [
        path for glob in parts.get(type(figure), ("figures/*.png", "*.safetensors")) for path in Path("runs").glob(glob)
    ]


def test_a_chart_names_methods_and_overwrites_its_like_alone(project):
    """Its first try may be a chart of fewer policies: the same command goes on."""
    words = ("fig5_centre", "door", DISTRACTORS, "--run", "one.safetensors", "--out", "ours.svg")
    Path("ours.png").write_text("another's")
    assert "ours.png exists already" in reproduced(*words, code=2)
    assert not Path("runs").exists()
    Path("ours.png").unlink()
    said = reproduced(*words)
    assert "figure: ours.png, ours.svg" in said
    assert "Attention96 (UNTRAINED) · NPG (one.safetensors)" in Path("ours.svg").read_text()
    reproduced(*words, "--run", "two.safetensors")
    drawn = Path("ours.svg").read_text()
    assert "Attention96 (UNTRAINED) · NPG (two.safetensors)" in drawn
    with pytest.raises(UserError, match="exists already"):
        chart.check(Path("ours.png"), "another title")


def test_policies_of_other_scores_stand_side_by_side(tmp_path):
    """None of them vanishes."""
    found = {
        "a": {f"distractors/nominal/success{end}": 50.0 for end in ("", "_low", "_high")},
        "b": {f"distractors/nominal/return{end}": 7.0 for end in ("", "_low", "_high")},
    }
    assert chart.conditions(found) == {
        "nominal, success": "distractors/nominal/success",
        "nominal, return": "distractors/nominal/return",
    }
    assert list(chart.table(found).columns[2].cells) == ["-", "7 (7 to 7)"]
    chart.draw(found, "both", tmp_path / "both")
    assert "success, return" in (tmp_path / "both.svg").read_text()


def test_what_can_not_be_drawn_is_refused_before_any_work(project):
    def refused(figure, *more, sets=(), task=None):
        return " ".join(reproduced(figure, task, sets, *more, code=2).split())

    door, hammer = ("--run", "one.safetensors"), ("--run", "hammer.safetensors")
    of_task = "hammer.safetensors is of hammer, {} is made here of door: leave it away; `{}` takes it"
    with_eval = "rrl eval hammer.safetensors --with eval/distractors"
    assert of_task.format("fig5_centre", with_eval) in refused("fig5_centre", *door, *hammer)
    other = refused("fig12", *hammer, task="door")
    assert of_task.format("fig12", "rrl eval hammer.safetensors --with eval/distractor_sheet") in other
    assert of_task.format("fig2", "rrl reproduce fig2 --task hammer") in refused("fig2", *hammer, task="door")
    gin = refused("fig2", "--run", "adroit_pen_resnet34", task="door")
    assert "adroit_pen_resnet34 is of pen, fig2" in gin
    for out, words in {
        ".": ". is a folder; name a file in it",
        "old.mp4": "a chart is a .png and an .svg of one name; got old.mp4",
        "/proc/x.png": "nothing can be written into /proc",
    }.items():
        assert words in refused("fig5_centre", *door, "--out", out)
        assert words in refused("fig5_left", "--out", out) or out == "/proc/x.png"
    assert "--out means nothing for fig12" in refused("fig12", *door, "--out", "a.png", task="door")
    assert "--budget means nothing for fig12" in refused("fig12", "--budget", "1h", task="door")
    assert "--seeds means nothing beside --run" in refused("fig5_centre", *door, "--seeds", "1")
    assert "--budget means nothing beside --run" in refused("fig5_centre", *door, "--budget", "1h")
    assert "did you mean fig5_left, fig5_centre or fig5_right?" in refused("fig5")
    assert "no component is named Foo" in refused("fig5_centre", *door, sets=["Foo.bar = 3"])
    saved(project / "blind.safetensors", BLIND, 28, 28)
    words = "shows a policy's pictures, and blind.safetensors (State (blind)) sees none: take one that does"
    assert words in refused("fig12", "--run", "blind.safetensors", task="door")
    assert not Path("runs").exists()


def test_a_verdict_on_runs_that_are_there(project):
    """A real run with its steps counted a thousandfold: its encoder and demonstrations are not the authors'."""
    reproduced("fig4", *TINY["fig4"], "--budget", "1h")
    (ours,) = results.find([])
    assert ours.params["seed"] == "10"
    path = ours.folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 20', '"step": 40000'))
    text = reproduced("fig4", "door", (), "--run", ours.run_id[:8])
    assert "NOT COMPARABLE: demonstrations policy adroit_door_expert (theirs human)" in text
    assert "encoder State (theirs ResNet)" in text
    assert "at 40,000 environment steps ours is within the interval of the published curve" in text
    page = Path("fig4_door.html").read_text()
    assert "NOT COMPARABLE" in page
    assert "authors" in page


def test_a_shipped_policy_stands_in_and_another_method_is_named(project, capsys):
    code, found = command._policies(FIGURES["fig12"], command.Request("fig12", "door"), [])
    assert (code, list(found)) == (0, ["adroit_door_mobilenetv2"])
    said = capsys.readouterr().out
    assert "the shipped policy adroit_door_mobilenetv2 stands in for a training of adroit_door_resnet34" in said
    assert "ANOTHER method" in said


def test_weights_that_can_not_be_had(project):
    """A stated substitute, settings over the same file, or left out with the reason; an encoder to be pretrained."""

    def found(figure, task="door"):
        known = FIGURES[figure]
        return runs.planned([each.of(task) for each in known.wanted], [10], [], known.offline)

    with_substitute, with_settings, left_out = found("fig10", "reacher"), found("fig8"), found("fig7")
    assert [job.name for job in with_substitute.jobs][-1] == "mjrl_reacher_mobilenetv2-seed10"
    assert {job.config.encoder.component.__name__ for job in with_settings.jobs} == {"MobileNetV2"}
    assert [job.source for job in left_out.jobs] == ["ablations/door_mobilenetv2"]
    assert sum(note.startswith("LEFT OUT: ") for note in left_out.notes) == 3
    assert [each.file for each in found("fig6").untrained] == ["ablations/door_vae"]
    with pytest.raises(UserError, match="weights of resnet34"):
        runs.planned([Wanted("adroit_door_resnet34")], [10], [])
