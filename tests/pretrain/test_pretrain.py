"""Training on pictures, and `rrl pretrain` as a user has it: kill -9, the same command again, its files, mistakes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lines import Lines
from helpers.report_runs import make_run
from helpers.stores import prepared
from safetensors.torch import load_file
from typer.testing import CliRunner

from rrl.cli import app
from rrl.config import ginfile
from rrl.encoders import VAE
from rrl.encoders.settings.task import read_header
from rrl.machine.multiply_adds import counted
from rrl.pretrain import sheet
from rrl.pretrain.pretraining import Pretraining, resolve
from rrl.pretrain.train import Pictures, Teacher, Training
from rrl.registry import UserError
from rrl.report import groups, notices
from rrl.store import results

SETTINGS = (
    "Pretraining.pictures = 160",
    "Pretraining.epochs = 4",
    "Pretraining.batch = 24",
    "Pretraining.held_out = 0.1",
    "Pretraining.num_envs = 2",
    "Pretraining.workers = 0",
    "Pretraining.threads = 1",
    "Adroit.horizon = 10",
    "VAE.size = 32",
    "VAE.latent = 8",
)


class Nowhere:
    """Shows a training to nobody."""

    run_id = "none"

    def metrics(self, rows):
        pass


def teacher(rows, **settings):
    """Of pictures that are nobody's."""
    config = ginfile.load("pretrain/vae_adroit_door", SETTINGS, "Pretraining")
    config = resolve(config.model_copy(update={"pictures": len(rows), "held_out": 0.1, "device": "cpu", **settings}))
    encoder = VAE(VAE.Config(weights=None, latent=8, size=32), cameras=1)
    return Teacher(config, encoder, Pictures(config, encoder, rows))


@pytest.fixture(scope="module")
def rows():
    """80 pictures of a bright square somewhere on a dark floor."""
    generator = np.random.default_rng(0)
    pictures = np.full((80, 32, 32, 3), 40, np.uint8)
    for picture in pictures:
        x, y = generator.integers(0, 20, 2)
        picture[y : y + 12, x : x + 12] = 220
    return pictures


def test_each_kind_keeps_its_last_pictures_for_looking_at(rows):
    pictures = teacher(rows, mixture=(0.5, 0.0, 0.25, 0.25)).pictures
    assert [held.tolist() for held in pictures.held_out] == [[36, 37, 38, 39], [], [58, 59], [78, 79]]
    assert sorted([*pictures.training, *np.concatenate(pictures.held_out)]) == list(range(80))
    first, again, other = (np.concatenate(list(pictures.shuffled(3, epoch, 8))) for epoch in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(first) == 72 == len(set(first)) and set(first) == set(pictures.training)
    batch = pictures.batch(np.array([5, 2]))
    expected = (torch.from_numpy(rows[[5, 2]]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(batch, expected)


def test_the_sheet_shows_pictures_that_are_apart(rows):
    """Held-out ones where there are many; where there are few, which are neighbours, all of their kind."""
    few = dict(sheet.rows(teacher(rows, mixture=(0.5, 0.0, 0.25, 0.25)).pictures))
    assert [*few] == [
        f"{kind} (trained on, but for {n})" for kind, n in (("expert", 4), ("large noise", 2), ("random", 2))
    ]
    for places, (begin, end) in zip(few.values(), ((0, 39), (40, 59), (60, 79)), strict=True):
        assert (places[0], places[-1], len(places)) == (begin, end, 10) and np.diff(places).min() >= 2
    pictures = teacher(np.zeros((2000, 32, 32, 3), np.uint8), mixture=(0.5, 0.5, 0.0, 0.0)).pictures
    for held, places in zip(pictures.held_out, dict(sheet.rows(pictures)).values(), strict=False):
        assert (places[0], places[-1]) == (held[0], held[-1]) and set(places) <= set(held)
        assert len(places) == 10 and np.diff(places).min() >= 10


def test_it_learns_to_rebuild_pictures(rows, tmp_path):
    """Better than the mean picture, which knows nothing of where the square is."""
    learning = Training(teacher(rows, epochs=12, batch=8, kl_weight=1e-4), tmp_path, Nowhere(), lines := Lines())
    last = learning.run()
    scaled = rows / 127.5 - 1
    assert last["held_out/reconstruction"] < 0.5 * scaled.var(axis=0).mean()
    assert "72 pictures to learn from, 8 held out; 0 MB, in memory" in lines.lines[0]
    metrics = [json.loads(line)["metrics"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [m["train/lr"] for m in metrics[:3]] == pytest.approx([0.005, 0.005 * 0.95, 0.005 * 0.95**2])
    wanted = {"loss", "kl", "reconstruction", *(f"reconstruction_{k}" for k in ("expert", "large_noise", "random"))}
    assert {f"held_out/{name}" for name in wanted} <= metrics[-1].keys()


def test_the_weight_of_the_divergence_is_the_settings(rows):
    learning = teacher(rows, kl_weight=0.5)
    told = learning.held_out()
    loss, wanted = told["held_out/loss"], told["held_out/reconstruction"] + 0.5 * told["held_out/kl"]
    assert loss == pytest.approx(wanted, rel=1e-5)


def test_multiply_adds_are_those_of_a_step_and_change_nothing(rows):
    learning = teacher(rows, batch=8)
    before = {name: tensor.clone() for name, tensor in learning.snapshot().items()}
    found = learning.multiply_adds()
    assert all(torch.equal(before[name], tensor) for name, tensor in learning.snapshot().items())
    steps = learning.epoch(0)
    assert found == counted(lambda: next(steps)) > 0


def test_a_training_that_diverges_is_told_and_keeps_nothing(rows, tmp_path):
    learning = Training(teacher(rows, lr=1e30, precision="fp32"), tmp_path, Nowhere(), Lines())
    with pytest.raises(
        UserError, match=r"diverged in epoch 1: .* is (nan|inf).*\n.* a lower Pretraining.lr \(it is 1e\+30\)"
    ):
        learning.run()
    assert not (tmp_path / "checkpoint.safetensors").exists()


# --- the command


def words(*arguments, settings=SETTINGS):
    sets = [part for setting in settings for part in ("--set", setting)]
    return ["pretrain", "pretrain/vae_adroit_door", *sets, *arguments]


def rrl(*arguments):
    return CliRunner().invoke(app, list(arguments))


def losses(folder):
    rows_ = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows_]


def killed(root, when):
    """Start the command in `root`, with a worker process, and kill it, kill -9, as soon as `when` says so."""
    settings = [text.replace("workers = 0", "workers = 1") for text in SETTINGS]
    command = [sys.executable, "-m", "rrl.cli", *words(settings=settings)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not when():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


def folder_in(root, name="vae_adroit_door"):
    paths = root.glob("runs/*/pretraining.json")
    (path,) = [path for path in paths if json.loads(path.read_text())["name"] == name]
    return path.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a finished training that nothing interrupted."""
    root = prepared(tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        done = rrl(*words())
    assert done.exit_code == 0, done.output
    (root / "said.txt").write_text(done.output)
    return root


@pytest.mark.slow
def test_kill_9_while_collecting_and_while_training_changes_nothing(trained, tmp_path, monkeypatch):
    root = prepared(tmp_path)

    def collected():
        return [json.loads(path.read_text())["rows"] for path in root.glob("runs/pictures/*/pictures.json")]

    killed(root, lambda: collected() and collected()[0] > 0)
    assert 0 < collected()[0] < 160
    killed(root, lambda: any(root.glob("runs/*/checkpoint.safetensors")))
    assert 1 <= len(losses(folder_in(root))) < 4 and collected() == [160]
    assert results.read_status(folder_in(root))[0] == "stopped"
    monkeypatch.chdir(root)
    done = rrl(*words())
    assert done.exit_code == 0 and "resumed after epoch" in done.output
    one, other = (next(r.glob("runs/pictures/*/pictures.u8")).read_bytes() for r in (root, trained))
    assert one == other and len(one) == 160 * 32 * 32 * 3
    assert losses(folder_in(root)) == losses(folder_in(trained))
    name = "runs/vae_adroit_door.safetensors"
    ours, theirs = load_file(root / name), load_file(trained / name)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_it_leaves(trained, monkeypatch):
    monkeypatch.chdir(trained)
    folder, said = folder_in(trained), (trained / "said.txt").read_text()
    assert "use it: rrl run ..." in said and "VAE.weights = 'runs/vae_adroit_door.safetensors'" in said
    assert "collecting 160 pictures of 32 px (0 MB)" in said
    header = read_header("runs/vae_adroit_door.safetensors", VAE)
    assert header.settings == {"latent": 8, "size": 32} and header.task == "adroit_door"
    data = {"pictures": 160, "mixture": [0.25] * 4, "noise": [0.1, 0.3], "seed": 0, "side": 32}
    assert data.items() <= header.data.items() and header.data["env"]["look"] == "fast"
    assert header.data["policy"].startswith("adroit_door_expert (sha256 ")
    assert header.training["epochs"] == 4 and header.training["run"] == folder.name
    assert header.training["losses"]["train/kl"] == losses(folder)[-1]["train/kl"]
    steps = 4 * (144 // 24)
    assert header.training["seconds"] > 0 and header.training["multiply_adds"] > steps * 24 * 3e6
    assert VAE(VAE.Config(weights="runs/vae_adroit_door.safetensors"), cameras=1).training_cost() == {
        name: header.training[name] for name in ("seconds", "multiply_adds")
    }
    from PIL import Image

    assert min(Image.open(folder / "reconstructions.png").size) > 300
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    run = client.get_run(folder.name)
    assert run.info.status == "FINISHED" and run.data.params["encoder.latent"] == "8"
    history = client.get_metric_history(folder.name, "held_out/reconstruction")
    assert [point.step for point in history] == [1, 2, 3, 4]
    kept = {file.path for file in client.list_artifacts(folder.name)}
    assert {"reconstructions.png", "encoder.safetensors", "config.gin"} <= kept
    listed = rrl("runs", "--json")
    assert json.loads(listed.stdout) == []  # it is no run, and no damaged one
    assert "is an encoder's training, not a run" in rrl("resume", folder.name[:8]).output


def test_it_neither_trains_twice_nor_overwrites(trained, monkeypatch):
    monkeypatch.chdir(trained)
    before = Path("runs/vae_adroit_door.safetensors").read_bytes()
    again = rrl(*words())
    assert again.exit_code == 0 and "this encoder is trained: runs/vae_adroit_door.safetensors" in again.output
    other = rrl(*words(settings=[*SETTINGS, "Pretraining.lr = 0.001"]))
    assert other.exit_code == 2 and "exists already; choose another name" in other.output
    assert "`--out FILE`, or a `Pretraining.name` of its own, keeps both" in " ".join(other.output.split())
    assert Path("runs/vae_adroit_door.safetensors").read_bytes() == before
    odd = rrl(*words("--out", "copy.pth"))
    assert odd.exit_code == 2 and "an encoder's file is a .safetensors; got copy.pth" in odd.output
    copy = rrl(*words("--out", "elsewhere/copy.safetensors"))  # the same training: only its file
    assert copy.exit_code == 0 and Path("elsewhere/copy.safetensors").read_bytes() == before
    assert len(list(Path("runs").glob("*/pretraining.json"))) == 1 and "epoch" not in copy.output


def test_what_comes_to_its_place_while_it_learns_is_kept(trained, monkeypatch):
    monkeypatch.chdir(trained)
    out = Path("runs/late.safetensors")
    monkeypatch.setattr(Teacher, "held_out", lambda self: out.write_text("mine") and {"held_out/loss": 1.0})
    done = rrl(*words(settings=[*SETTINGS, "Pretraining.name = 'late'", "Pretraining.lr = 0.002"]))
    assert done.exit_code == 2 and "late.safetensors exists already" in done.output and "are few" in done.output
    assert out.read_text() == "mine"
    out.unlink()
    monkeypatch.undo()
    monkeypatch.chdir(trained)
    again = rrl(*words(settings=[*SETTINGS, "Pretraining.name = 'late'", "Pretraining.lr = 0.002"]))
    assert again.exit_code == 0 and "this encoder is trained" in again.output


def test_another_training_finds_the_pictures_and_a_budget_ends_it(trained, monkeypatch):
    monkeypatch.chdir(trained)
    settings = [s for s in SETTINGS if "epochs" not in s] + ["Pretraining.epochs = 10000", "Pretraining.name = 'b'"]
    done = rrl(*words("--budget", "0.5s", settings=settings))
    assert done.exit_code == 0, done.output
    assert "collecting" not in done.output and "the budget is over: go on with the same command" in done.output
    assert not Path("runs/b.safetensors").exists()
    assert results.read_status(folder_in(trained, "b"))[0] == "stopped"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["Pretraining.mixture = (0.5, 0.5, 0.5, 0.5)"], "must sum to 1; got (0.5, 0.5, 0.5, 0.5), which is 2"),
        (["Pretraining.policy = None"], "asks for an expert, but Pretraining.policy is None"),
        (["Pretraining.policy = 'adroit_dor_expert'"], "name a shipped policy (adroit_door_expert, "),
        (["VAE.weights = 'encoder.safetensors'"], "VAE.weights must be None here"),
        (["Pretraining.pictures = 100"], "batch is 144, but only 100 pictures are trained on"),
        (["Pretraining.encoder = @ResNet()"], "Pretraining.encoder takes VAE"),
        (["Pretraining.pictures = 900_000_000"], "900,000,000 pictures are 11,059.2 GB"),
        (["Pretraining.name = '../a'"], "Pretraining.name"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(settings, text, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "encoder.safetensors" in settings[0]:
        (tmp_path / "encoder.safetensors").symlink_to(folder_in(trained) / "encoder.safetensors")
    done = rrl(*words(settings=settings))
    assert done.exit_code == 2 and text in " ".join(done.output.split()), done.output
    assert {path.name for path in tmp_path.iterdir()} <= {"encoder.safetensors"}


def test_commands_know_a_pretraining_from_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.gin").write_text("include 'pretrain/vae_adroit_door.gin'\nVAE.latent = 32\n")
    for name in ("pretrain/vae_adroit_door", "mine.gin"):
        told = rrl("run", name)
        assert told.exit_code == 2 and f"start it with: rrl pretrain {name}" in told.output
        assert rrl("sweep", name).exit_code == 2
        checked = rrl("check", name)
        assert checked.exit_code == 0 and "Pretraining.kl_weight = 0.000147" in checked.output
    assert "VAE.latent = 32" in checked.output
    told = rrl("pretrain", "adroit_door_state")
    assert told.exit_code == 2 and "adroit_door_state is a run, not a pretraining such as" in told.output
    assert "pretrain/vae_adroit_door" in told.output
    listed = rrl("list").output
    assert "pretraining:" in listed and "pretrain/vae_adroit_pen" in listed and "rrl pretrain NAME" in listed


@pytest.mark.parametrize("name", [name for name in ginfile.shipped() if name.startswith("pretrain/")])
def test_shipped_pretrainings_write_the_file_of_their_name(name):
    config = ginfile.load(name, root="Pretraining")
    assert isinstance(config, Pretraining.Config)
    assert f"pretrain/{config.title}" == name and config.pictures == 1_000_000 and config.epochs == 10


# --- what other tasks' files do to runs


def test_a_file_of_another_task_is_told_everywhere(trained, tmp_path, monkeypatch):
    """In the run's output, its title and tags, reports and comparisons."""
    monkeypatch.chdir(prepared(tmp_path))
    weights = str(trained / "runs" / "vae_adroit_door.safetensors")
    tiny = ("Experiment.iterations = 0", "Experiment.evaluators = ()", "Experiment.num_envs = 2", "Adroit.horizon = 5")
    tiny = (*tiny, "Experiment.workers = 0", "DemoSet.episodes = 1", f"VAE.weights = {weights!r}", "DAPG.bc_epochs = 1")
    done = rrl("run", "adroit_door_vae", "env/adroit_pen", *(w for s in tiny for w in ("--set", s)))
    assert done.exit_code == 0, done.output
    assert "adroit_pen  VAE (of adroit_door)  DAPG" in done.output
    assert "WARNING: the encoder was trained on pictures of adroit_door, this is adroit_pen" in done.output
    (other,) = results.find([])
    assert other.labels["encoder"] == "VAE (of adroit_door)" and "encoder.other_task" in other.tags
    make_run(tmp_path / "runs", "aa", "adroit_door_vae", [f"VAE.weights = {weights!r}"], tags={
        "encoder.other_pictures": "the encoder was trained on pictures with look fast, here it is default"
    })  # fmt: skip
    report = groups.collect(results.find([]))
    told = {n.serious: n.items for n in notices.notices(report) if "trained on other pictures" in n.text}
    assert any("pen · VAE (of adroit_door)" in item and "this is adroit_pen" in item for item in told[True])
    assert any("look fast, here it is default" in item for item in told[False])
    compared = rrl("compare", "aa", other.run_id)
    assert "this is adroit_pen" in compared.output
