"""`rrl probe` from its gin file to its leaderboard: what is measured, what is found again, what is told."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.plugins import install
from helpers.stores import prepared
from mlflow import MlflowClient
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile
from rrl.probes import chart, command, measure
from rrl.probes.folder import ProbeFolder
from rrl.probes.settings import Probe
from rrl.registry import UserError

TINY = """
include 'env/adroit_pen.gin'
include 'env/adroit_fast.gin'
Probe.env = @Adroit()
Adroit.horizon = 6
Probe.demos = @DemoSet()
DemoSet.episodes = 4
Probe.agent = @BC()
BC.policy_hidden = (8,)
BC.bc_epochs = 1
Probe.encoders = ({encoders})
Probe.folds = 2
Probe.states = 120
Probe.mlp_hidden = (8,)
Probe.clones = 2
Probe.episodes = 5
Probe.shown = 8
Probe.changes = ('look balanced', 'object colour')
Probe.num_envs = 2
Probe.workers = 0
Probe.threads = 1
Probe.backend = 'torch'
"""
ONE = "@Attention96(),"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a plugin's encoder, whose pictures are small, and the demonstrations of `TINY` cut short."""
    install(monkeypatch, tmp_path / "plugins", "plugins.encoder96")
    monkeypatch.setattr(measure, "TIMED", 0.05)
    monkeypatch.chdir(prepared(tmp_path))
    write(ONE)
    return tmp_path


def write(encoders, more=""):
    Path("tiny.gin").write_text(TINY.format(encoders=encoders) + more)


def probe(*overrides, code=0):
    assert command.probe(["tiny.gin"], overrides, None) == code
    (folder,) = (path.parent for path in Path("runs").glob("*/probe.json"))
    with (folder / "leaderboard.csv").open() as file:
        return folder, {row["encoder"]: row for row in csv.DictReader(file)}


def pieces(folder):
    """Name -> when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "pieces").iterdir()}


def in_mlflow():
    """Name of each run -> its parent and everything ever measured of one number."""
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")  # MLflow keeps what it opened by its name
    found = client.search_runs([client.get_experiment_by_name("rrl").experiment_id])
    return {
        run.info.run_name: (
            run.data.tags.get("mlflow.parentRunId"),
            [(point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, "r2/linear")],
        )
        for run in found
    }


def test_a_plugins_encoder_stands_between_controls_and_nothing_is_computed_twice(project, capsys, monkeypatch):
    folder, rows = probe()
    text = capsys.readouterr().out
    assert "pieces to do: about" in text and "; fitting probes and clones comes on top)" in text
    assert set(rows) == {"Attention96 (UNTRAINED)", "State", "State (blind)"}
    row = rows["Attention96 (UNTRAINED)"]
    assert (row["role"], rows["State"]["role"]) == ("encoder", "control")
    assert row["weights"].startswith("untrained:seed0:")
    assert float(row["cost/dim"]) == 32
    # 36 patches of 768 numbers; of each token queries, keys, values, attention to 36 twice, a projection and 2 layers.
    assert float(row["cost/multiply_adds"]) == 36 * 32 * (768 + 3 * 32 + 2 * 36 + 32 + 2 * 64)
    for kind in ("mean", "sampled"):
        assert float(row[f"clones/{kind}_episodes"]) == 5
        assert 0 <= float(row[f"clones/{kind}_low"]) <= float(row[f"clones/{kind}"]) <= 100
    # The state tells the state, the joints tell themselves and not the pen, features something of both.
    assert float(rows["State"]["r2/linear/pen position"]) > 0.9
    assert float(rows["State (blind)"]["r2/linear/hand joints"]) > 0.99
    assert float(rows["State (blind)"]["r2/linear/pen position"]) < 0.9
    assert "r2/linear/pen velocity" not in row  # no picture shows it: two do
    assert row["r2/linear_change/pen velocity"] != ""
    # The same states in another look: the features move, and no more than they differ from state to state by far.
    assert float(row["moved/nominal"]) == 0
    for change in ("look balanced", "object colour"):
        assert float(row[f"moved/{change}"]) > 0
        assert float(row[f"r2/under/{change}"]) <= 1
    assert {path.name for path in folder.iterdir()} > {"leaderboard.png", "leaderboard.svg", "config.gin"}
    monkeypatch.setattr(chart, "draw", lambda *_: None)  # once is enough

    # The clones of all act in the same episodes.
    clones = [json.loads(path.read_text()) for path in (folder / "pieces").glob("clone-*.json")]
    assert sorted((clone["key"]["first"], clone["key"]["count"]) for clone in clones) == [(0, 2)] * 3 + [(2, 3)] * 3
    assert all(len(clone["result"]["mean"]["return"]) == clone["key"]["count"] for clone in clones)
    said = CliRunner().invoke(cli.app, ["runs"]).output
    assert "damaged" not in said

    before, told = pieces(folder), in_mlflow()
    assert set(told) == {"tiny", *(f"tiny: {label}" for label in rows)}
    # Shown again by its id: everything is there.
    leaderboard = (folder / "leaderboard.csv").read_bytes()
    again = CliRunner().invoke(cli.app, ["probe", folder.name[:8]])
    assert again.exit_code == 0
    shown = again.output
    assert "everything is done" in shown and "adroit_pen: encoders compared, 4 demonstrations, 2 clones, 5 ep" in shown
    assert ((folder / "leaderboard.csv").read_bytes(), pieces(folder), in_mlflow()) == (leaderboard, before, told)
    # One encoder more: its own pieces alone.
    write(ONE + "@other/Attention96(),", "other/Attention96.seed = 1\n")
    again, more = probe()
    assert again == folder
    labels = {"Attention96 (UNTRAINED) (seed 0)", "Attention96 (UNTRAINED) (seed 1)"}
    assert labels | {"State", "State (blind)"} == set(more)
    now = pieces(folder)
    assert {name: now[name] for name in before} == before
    own = [json.loads((folder / "pieces" / name).read_text()) for name in now.keys() - before if name.endswith("json")]
    assert {(piece["key"]["encoder"]["name"], piece["key"]["encoder"]["seed"]) for piece in own} == {
        ("Attention96", "1")
    }
    # Another task by the same name would take its place.
    before = (folder / "leaderboard.csv").read_bytes()
    for other in ("Adroit.horizon = 7", "Probe.folds = 3"):
        with pytest.raises(UserError, match=r"is a probe called 'tiny' too, with another Probe\.(env|folds)"):
            command.probe(["tiny.gin"], [other], None)
    assert (folder / "leaderboard.csv").read_bytes() == before and pieces(folder) == now
    # A dry run says what is left to do, and does nothing.
    capsys.readouterr()
    assert command.probe(["tiny.gin"], ["Probe.episodes = 6"], None, dry_run=True) == 0
    assert "8 pieces to do" in capsys.readouterr().out
    assert pieces(folder) == now
    # And an episode more: the clones alone. A damaged piece is made again.
    (damaged, *_) = (folder / "pieces").glob("shown-*.npz")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    next((folder / "pieces").glob("drift-*.json")).unlink()
    probe("Probe.episodes = 6")
    assert {name.partition("-")[0] for name in pieces(folder).keys() - now} == {"clone"}
    assert damaged.stat().st_size == len(whole)


def test_an_id_means_that_very_probe_and_not_the_newest_of_its_name(project, capsys):
    write("@State(),", "State.blind = True\nProbe.controls = False\n")
    config = ginfile.load("tiny.gin", root="Probe")
    with ProbeFolder.open("tiny") as old:
        old.settings(config)
    with ProbeFolder.open("tiny", new=True) as newer:
        newer.settings(config)
    assert ProbeFolder.named("tiny")[0] == newer.folder != old.folder
    for dry_run in (True, False):
        few = ["Probe.clones = 0", "Probe.shown = 0"]
        assert command.probe([old.folder.name[:8]], few, None, dry_run=dry_run) == 0
        assert "; fitting probes comes on top)" in capsys.readouterr().out
    assert (old.folder / "leaderboard.csv").exists() and not (newer.folder / "pieces").exists()


@pytest.mark.slow
def test_killed_on_the_way_it_goes_on_where_it_was(project, monkeypatch):
    write(ONE, "Probe.controls = False\n")
    Path("tiny.gin").write_text(Path("tiny.gin").read_text().replace("Probe.clones = 2", "Probe.clones = 4"))
    monkeypatch.setattr(chart, "draw", lambda *_: None)
    child = subprocess.Popen(
        [sys.executable, "-m", "rrl", "probe", "tiny.gin"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 120
    while len(done := list(Path("runs").glob("*/pieces/clone-*.json"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    folder = done[0].parent.parent
    before = pieces(folder)
    assert len([name for name in before if name.startswith("clone")]) < 4
    again, rows = probe()
    assert again == folder
    now = pieces(folder)
    assert {name: now.get(name) for name in before if ".part" not in name} == {
        name: when for name, when in before.items() if ".part" not in name
    }
    assert len([name for name in now if name.startswith("clone")]) == 4
    assert all(row["clones"] == "4" for row in rows.values())


def test_an_encoder_that_cannot_be_had_is_told_last_and_the_others_go_on(project, capsys):
    (project / "bad.pth").write_bytes(b"no weights")
    write(ONE + "@ResNet(),", "ResNet.weights = 'bad.pth'\nProbe.clones = 0\nProbe.shown = 0\nProbe.controls = False\n")
    text = Path("tiny.gin").read_text().replace("Probe.clones = 2\n", "").replace("Probe.shown = 8\n", "")
    Path("tiny.gin").write_text(text)
    _, rows = probe(code=2)
    assert "bad.pth" in rows["ResNet34"]["problem"]
    assert rows["ResNet34"]["r2/linear"] == ""
    assert float(rows["Attention96 (UNTRAINED)"]["r2/linear"]) <= 1
    last = [line for line in capsys.readouterr().out.splitlines() if "NOT COMPARED" in line]
    assert last and "ResNet34" in last[0]
    write("@ResNet(),", "ResNet.weights = 'bad.pth'\nProbe.controls = False\n")
    with pytest.raises(UserError, match="none of the encoders can be had"):
        command.probe(["tiny.gin"], [], "other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["Probe.encoders = (@PixelCNN(),)"], "BC needs a frozen encoder"),
        (["Probe.agent = @SAC()"], "SAC"),
        (["Probe.folds = 5"], "4 demonstrations can't be split into 5 folds"),
        (["Probe.changes = ('fog',)"], "'fog', which adroit_pen can't show: it knows 'look default'"),
        (["Probe.backend = 'abacus'"], "Probe.backend must be 'auto'"),
        (["Probe.clones = 6"], "Probe.clones is 6, but they share 5 episodes"),
    ],
)
def test_what_cannot_be_is_refused(project, overrides, message):
    with pytest.raises(UserError, match=message):
        command.probe(["tiny.gin"], overrides, None)


def test_commands_know_what_a_probe_is(project):
    def said(*words):
        return CliRunner().invoke(cli.app, list(words))

    checked = said("check", "tiny.gin")
    assert checked.exit_code == 0, checked.output
    assert ginfile.loads(checked.output, root="Probe") == ginfile.load("tiny.gin", root="Probe")
    for words, right in (
        (("run", "tiny.gin"), "tiny.gin is a probe, not a run; start it with: rrl probe tiny.gin"),
        (("run", "probe/adroit_pen"), "rrl probe probe/adroit_pen"),  # which binds none of its fields itself
        (("probe", "quickstart"), "quickstart is a run, not a probe such as probe/adroit_door, "),
        (("probe", "quickstart"), "; start it with: rrl run quickstart"),
        (("probe", "sweeps/fig4_door"), "; start it with: rrl sweep sweeps/fig4_door"),
        (("sweep", "tiny.gin"), "is a probe, not a run; start it with: rrl probe tiny.gin"),
    ):
        done = said(*words)
        assert done.exit_code == 2
        assert right in done.output
    assert "Probe.clones = 3" in said("describe", "Probe").output
    listed = said("list", "probe").output
    assert "Probe" in listed
    assert "probe/adroit_door" in said("list", "files").output


@pytest.mark.parametrize("task", ["door", "pen", "hammer", "relocate"])
def test_shipped_probes(task):
    config = ginfile.load(f"probe/adroit_{task}", root="Probe")
    assert isinstance(config, Probe.Config)
    assert config.env.label() == task
    assert (config.clones, config.episodes, config.controls) == (3, 100, True)
