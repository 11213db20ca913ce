"""A run goes on on another machine: what that one decides may change, nothing else, and the run tells it."""

import json
import shlex

import pytest
import torch
from helpers import adroit
from helpers.stores import prepared
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile

SMALL = ("Experiment.iterations = 1", "Experiment.workers = 0", "Experiment.backend = 'torch'", *adroit.SHORT_RUN)


def rrl(*arguments, sets=(), code=0):
    done = CliRunner().invoke(cli.app, [*arguments, *(part for text in sets for part in ("--set", text))])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run that has made its one update."""
    monkeypatch.chdir(prepared(tmp_path))
    rrl("run", "adroit_door_state", sets=SMALL)
    (path,) = tmp_path.glob("runs/*/run.json")
    return path.parent


def written_elsewhere(run, **settings):
    """As if a machine had decided otherwise when the run began."""
    config = ginfile.load(run / "config.gin")
    (run / "config.gin").write_text(ginfile.dumps(config.model_copy(update=settings)))


def in_mlflow(run):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{run.parent.parent / 'mlflow.db'}").get_run(run.name).data.tags


def config_of(run):
    return ginfile.load(run / "config.gin")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the run asks for")
def test_a_run_of_a_gpu_goes_on_without_one_by_the_command_that_the_error_names(run):
    written_elsewhere(run, device="cuda")
    refused = rrl("resume", run.name[:8], "--iterations", "2", code=2)
    command = f"rrl resume {run.name[:8]} --set \"Experiment.device = 'cpu'\""
    assert command in refused
    assert config_of(run).device == "cuda"
    said = rrl(*shlex.split(command)[1:], "--iterations", "2")
    assert "note: device cuda -> cpu: the result need not equal an uninterrupted run's bit for bit" in said
    assert config_of(run).device == "cpu"
    assert json.loads((run / "tags.json").read_text())["resumed.device"] == "cuda -> cpu at step 10"

    rrl("resume", run.name, "--iterations", "3", sets=("Experiment.device = 'auto'", "Experiment.threads = 2"))
    tags = json.loads((run / "tags.json").read_text())
    assert tags["resumed.device"] == "cuda -> cpu at step 10", "what was told stays, and 'auto' comes to the same"
    assert tags["resumed.threads"] == "1 -> 2 at step 20"
    assert (config_of(run).device, config_of(run).threads, config_of(run).iterations) == ("cpu", 2, 3)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    assert in_mlflow(run)["resumed.device"] == tags["resumed.device"]


def test_what_the_machine_does_not_decide_stays_and_contradictions_are_refused(run):
    before = (run / "config.gin").read_text()
    for setting, message in {
        "Experiment.seed = 3": "Experiment.seed can't change on the way from 0 to 3",
        "Experiment.num_envs = 4": "Experiment.num_envs can't change",
        "Experiment.groups = 2": "Experiment.groups can't change",
        "Experiment.precision = 'bf16'": "Experiment.precision can't change on the way from fp32 to bf16",
        "DAPG.gamma = 0.9": "DAPG.gamma can't change on the way from 0.995 to 0.9",
        "Experiment.iterations = 5": "a run is lengthened with --iterations 5",
        "Experiment.threads = 3000": "<= 1024",
        "Experiment.backend = 'openvine'": "did you mean 'openvino'?",
        "Experiment.device = cuda": "'cuda'",
    }.items():
        assert message in rrl("resume", run.name, "--iterations", "2", sets=(setting,), code=2)
        assert (run / "config.gin").read_text() == before
    pixels = ginfile.load("adroit_door_mobilenetv2", ["MobileNetV2.weights = None"])  # for which a backend counts
    written_elsewhere(run, encoder=pixels.encoder, backend="openvino", precision="int8")
    (run / "checkpoint.safetensors").unlink()
    before = (run / "config.gin").read_text()
    refused = rrl("resume", run.name, "--iterations", "2", sets=("Experiment.backend = 'torch'",), code=2)
    assert "precision 'int8' needs backend 'openvino'" in refused
    assert (run / "config.gin").read_text() == before
    assert "resumed.backend" not in json.loads((run / "tags.json").read_text())
