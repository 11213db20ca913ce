"""Each tracker, read back by its own means: all points, each once, whatever a run went through."""

import importlib.util
import json
import struct

import pytest

from rrl import registry
from rrl.config import ginfile
from rrl.registry import build
from rrl.store.tracking import Row
from rrl.trackers import Run, TensorBoard, Trackio, WandB

RUN_ID = "0123456789abcdef0123456789abcdef"
ROWS = [
    Row(0, 1_700_000_000_000, {"eval/return": -1.5, "time/evaluate": 0.25}),
    Row(40, 1_700_000_010_000, {"train/return": 1.0, "iteration": 1.0}),
    Row(80, 1_700_000_020_000, {"train/return": 3.0, "iteration": 2.0, "eval/return": 2.5}),
    Row(80, 1_700_000_030_000, {"final/return": 2.75}),
]
POINTS = sorted((name, row.step, value) for row in ROWS for name, value in row.metrics.items())


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def tracker(cls, folder, resumed=False, **settings):
    run = Run(RUN_ID, "door seed0", folder, None, "**a note**", {"agent": "DAPG", "seed": "0"}, resumed)
    return build(cls.Config(**settings), run=run)


def shown(cls, folder, rows, resumed=False, **settings):
    """A process's part of a run: begins, and records the rows one after another."""
    found = tracker(cls, folder, resumed, **settings)
    found.recorded = found.begin()
    held = found.recorded
    for count in range(1, len(rows) + 1):
        found.metrics(rows[:count])
    return found, held


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


@needs("tensorboard")
def test_tensorboards_file_has_every_row_once_after_a_kill(tmp_path):
    shown(TensorBoard, tmp_path, ROWS[:2])  # killed: never ended, and its second row is after the checkpoint
    again, held = shown(TensorBoard, tmp_path, ROWS, resumed=True)
    assert held == 0
    again.tags({"device": "x86_64"})
    again.tags({"stopped_by": "a|b"})
    again.end("FINISHED")
    folder = tmp_path / "tensorboard" / "door_seed0-01234567"
    assert len(list(folder.iterdir())) == 1
    found = events(folder)
    points = [(name, p.step, p.value) for name in found.Tags()["scalars"] for p in found.Scalars(name)]
    assert sorted(points) == POINTS
    assert [p.wall_time for p in found.Scalars("train/return")] == [1_700_000_010, 1_700_000_020]
    texts = {name: found.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in found.Tags()["tensors"]}
    assert "**a note**" in texts["run/text_summary"]
    assert "| agent | DAPG |" in texts["settings/text_summary"]
    assert "| device | x86_64 |\n| stopped_by | a&#124;b |" in texts["facts/text_summary"]


@needs("tensorboard")
def test_a_tensorboard_that_is_open_forgets_the_earlier_file(tmp_path):
    shown(TensorBoard, tmp_path, ROWS[:3])
    found = events(tmp_path / "tensorboard" / "door_seed0-01234567")
    assert len(found.Scalars("train/return")) == 2
    shown(TensorBoard, tmp_path, ROWS, resumed=True)[0].end("FINISHED")
    found.Reload()
    assert [p.step for p in found.Scalars("train/return")] == [40, 80]


def records(path):
    """The records of a .wandb file: LevelDB's log format, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield Record.FromString(whole)
            whole = b""


@needs("wandb")
def test_wandbs_offline_folder_has_every_row_once_after_a_resume(tmp_path, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "learning_curve.png").write_bytes(b"\x89PNG")
    (tmp_path / "policy.safetensors").write_bytes(b"weights")
    first, _ = shown(WandB, tmp_path, ROWS[:2], mode="offline")
    first.end("KILLED")
    again, held = shown(WandB, tmp_path, ROWS, resumed=True, mode="offline")
    assert held == 0
    again.tags({"device": "x86_64"})
    for name in ("learning_curve.png", "policy.safetensors"):
        again.artifact(tmp_path / name, "")
    assert again.where().startswith("wandb sync ")
    again.end("FINISHED")
    wandb.teardown()  # its process has written everything once it has ended
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert again.where() == f"wandb sync {folder}"
    points, times, configured = [], [], {}
    for record in records(folder / f"run-{RUN_ID}.wandb"):
        if record.HasField("history"):
            told = {item.nested_key[0] if item.nested_key else item.key: item for item in record.history.item}
            told = {name: json.loads(item.value_json) for name, item in told.items()}
            points += [(name, told["steps"], v) for name, v in told.items() if name[0] != "_" and name != "steps"]
            times.append(told["_timestamp"])
        elif record.HasField("run"):
            assert (record.run.run_id, record.run.display_name, record.run.project) == (RUN_ID, "door seed0", "rrl")
            configured |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("config"):
            configured |= {item.key: json.loads(item.value_json) for item in record.config.update}
    assert sorted(points) == POINTS
    assert times == [row.time / 1000 for row in ROWS]
    assert configured["agent"] == "DAPG" and configured["facts"] == {"device": "x86_64"}
    assert (folder / "files" / "learning_curve.png").read_bytes() == b"\x89PNG"
    assert not (folder / "files" / "policy.safetensors").exists()


@needs("wandb")
def test_wandb_without_a_login_is_refused_before_the_run(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert "wandb login" in WandB.Config().refusal()
    assert WandB.Config(mode="offline").refusal() is None
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandB.Config().refusal() is None


@needs("trackio")
def test_trackios_database_has_every_row_once_after_a_kill(tmp_path, monkeypatch):
    import trackio.sqlite_storage
    import trackio.utils
    from trackio.sqlite_storage import SQLiteStorage

    for module in (trackio, trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path)
    first, _ = shown(Trackio, tmp_path, ROWS[:3])
    first.end("KILLED")
    again, held = shown(Trackio, tmp_path, ROWS[:2], resumed=True)  # the checkpoint is of the second row
    assert held == 3
    again.metrics(ROWS)
    again.end("FINISHED")
    assert SQLiteStorage.get_runs("rrl") == ["door seed0-01234567".replace(" ", "_")]
    logs = SQLiteStorage.get_logs("rrl", again.run.own_name)
    own = {"step", "timestamp"}
    points = [(name, log["step"], value) for log in logs for name, value in log.items() if name not in own]
    assert sorted(points) == POINTS
    assert SQLiteStorage.get_run_config("rrl", again.run.own_name)["agent"] == "DAPG"


def test_trackio_that_would_send_the_run_away_is_refused(monkeypatch):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/mine")
    reason = Trackio.Config().refusal()
    assert ("TRACKIO_SPACE_ID" if importlib.util.find_spec("trackio") else "pip install") in reason


@pytest.mark.parametrize("name", registry.names("tracker"))
def test_a_tracker_without_its_package_says_what_to_install(name):
    cls = registry.get(name)
    if importlib.util.find_spec(cls.package) is None:
        assert cls.Config().refusal() == f"{name} needs the package {cls.package}: pip install 'rrl[{cls.extra}]'"
    assert cls.Config(**{"mode": "offline"} if cls is WandB else {}).label() == name


def test_the_same_tracker_twice_is_a_mistake():
    twice = "Experiment.trackers = (@TensorBoard(), @one/TensorBoard())"
    with pytest.raises(ginfile.ConfigError, match="TensorBoard is there twice"):
        ginfile.load("adroit_door_state", [twice])


def test_a_run_without_other_trackers_reads_as_before():
    config = ginfile.load("adroit_door_state")
    assert not [name for name in ginfile.flatten(config) if name.startswith(("trackers", "system"))]
    assert "trackers" not in ginfile.dumps(config)
