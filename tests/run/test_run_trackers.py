"""What trackers are told by a run, by its resume, and what a failing one costs it."""

import importlib.util
import json
from typing import ClassVar

import pytest
from helpers.stores import prepared
from mlflow import MlflowClient

from rrl import registry
from rrl.registry import UserError
from rrl.run import process
from rrl.store import results, tracking
from rrl.trackers import Tracker

TINY = [
    "Experiment.iterations = 1",
    "Experiment.num_envs = 4",
    "Experiment.workers = 0",
    "Experiment.evaluators = ()",
    "Experiment.system_metrics = True",
    "Adroit.horizon = 10",
    "DAPG.trajectories = 4",
    "DAPG.bc_epochs = 1",
    "DAPG.value_batch = 8",
    "DemoSet.episodes = 2",
]


class Noted(Tracker):
    """Keeps what it is told, in a file that outlives the process's part of the run."""

    package = "json"
    extra = "none"

    class Config(Tracker.Config):
        """Settings."""

    def begin(self):
        self.path = self.run.project / f"{self.run.own_name}.jsonl"
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0

    def record(self, row):
        with self.path.open("a") as file:
            file.write(json.dumps({"step": row.step, "time": row.time, "metrics": dict(row.metrics)}) + "\n")

    def end(self, status):
        (self.run.project / "ended").write_text(status)

    def where(self):
        return "here"


class Failing(Tracker):
    """Breaks wherever it can."""

    package = "json"
    extra = "none"
    made: ClassVar[list[str]] = []

    class Config(Tracker.Config):
        """Settings."""

    def begin(self):
        return 0

    def record(self, row):
        raise OSError("the disk is full")

    tags = artifact = end = record

    def where(self):
        return "nowhere"


class Closed(Failing):
    """Can't even begin."""

    class Config(Tracker.Config):
        """Settings."""

    def begin(self):
        raise ConnectionError("nobody answers")


class Absent(Noted):
    """Its package isn't there."""

    package = "no_package_of_this_name"
    extra = "absent"

    class Config(Tracker.Config):
        """Settings."""


@pytest.fixture(scope="module", autouse=True)
def _registered():
    registry.names()
    classes = (Noted, Failing, Closed, Absent)
    for cls in classes:
        registry.register(cls)
    yield
    for cls in classes:
        del registry._components[cls.__name__]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_told_whole_and_once_and_no_tracker_ends_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(prepared(tmp_path))
    there = importlib.util.find_spec("tensorboard")
    others = "@Failing(), @Closed(), @Noted()" + (", @TensorBoard()" if there else "")
    trackers = f"Experiment.trackers = ({others})"
    with pytest.warns(UserWarning) as caught:
        assert process.start("adroit_pen_state", [*TINY, trackers], "pen, of mine", None) == 0
    told = [str(each.message) for each in caught if "this run" in str(each.message)]
    assert "Closed could not begin (nobody answers): it won't show this run" in told
    assert told.count("Failing did not take this run's metrics (the disk is full); the training goes on") == 1
    assert "Noted: here" in capsys.readouterr().out
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/run.json"))
    own = f"pen__of_mine-{folder.name[:8]}"
    assert rows(tmp_path / f"{own}.jsonl") == rows(folder / "metrics.jsonl")
    assert (tmp_path / "ended").read_text() == "FINISHED"
    assert not [name for name in results.read(folder).params if name.startswith(("trackers", "system"))]

    client = MlflowClient(tracking.store())
    run = client.get_run(folder.name)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "adroit_pen_paper"
    assert dataset.dataset.digest == run.data.tags["demos.checksum"]
    assert json.loads(dataset.dataset.profile)["episodes"] == 2
    note = run.data.tags["mlflow.note.content"]
    assert "rrl run adroit_pen_state --set 'Experiment.iterations = 1'" in note
    assert f"rrl report {folder.name[:8]}" in note and "protocol paper" in note
    used = {name: value for name, value in run.data.metrics.items() if name.startswith("system/")}
    assert 0 <= used["system/cpu_utilization_percentage"] <= 100
    assert 100 < used["system/process_memory_usage_megabytes"] < 100_000

    # Resumed, with one tracker fewer; what a user wrote in MLflow stays.
    client.set_tag(folder.name, "mlflow.note.content", "my own words")
    fewer = ["Experiment.trackers = (@Noted(),)"] + (["Experiment.trackers = (@Noted(), @TensorBoard())"] * bool(there))
    assert process.resume(folder.name, iterations=3, overrides=fewer[-1:]) == 0
    truth = rows(folder / "metrics.jsonl")
    assert len(truth) >= 3
    assert rows(tmp_path / f"{own}.jsonl") == truth
    assert "Failing" not in (folder / "config.gin").read_text()
    run = client.get_run(folder.name)
    assert len(run.inputs.dataset_inputs) == 1
    assert run.data.tags["mlflow.note.content"] == "my own words"
    assert len(client.get_metric_history(folder.name, "system/system_memory_usage_percentage")) == 3
    if there:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard" / own), size_guidance={"scalars": 0}).Reload()
        points = sorted((name, p.step) for name in events.Tags()["scalars"] for p in events.Scalars(name))
        assert points == sorted((name, row["step"]) for row in truth for name in row["metrics"])


def test_a_missing_package_is_told_before_a_run_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"Absent needs the package no_package_of_this_name: pip install 'rrl\[absent\]'"
    ):
        process.start("adroit_pen_state", [*TINY, "Experiment.trackers = (@Absent(),)"], None, None)
    assert not list(tmp_path.iterdir())
