"""LeRobotDatasets out and in.

That LeRobot opens what is written here, splits it and merges it again, with equal actions and states and pictures equal
but for the film's losses, was tried with lerobot 0.4.4 (torch 2.10.0, datasets 4.8.5, pyarrow 26.0.1, PyAV 15.1.0;
torchcodec 0.10.0 and torchvision 0.25.0 as decoders); these tests hold that layout. The layout of `by_lerobot` is what
that version writes.
"""

import json
import shutil
import sys
from dataclasses import replace

import av
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import point
from typer.testing import CliRunner

from rrl import cli
from rrl.commands import demo_imports
from rrl.commands import demos as demo_tools
from rrl.commands import lerobot as exporting
from rrl.demos import importers, lerobot, sets
from rrl.demos.importers import base
from rrl.envs.any_gym import Gymnasium
from rrl.envs.base import FrameRequest, find_task
from rrl.registry import UserError, build

COUNT, STEPS, SIDE, FPS = 2, 50, 32, 25
CAMERA = "observation.images.front"
DATA, ROWS = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
TAKE = {"task": None, "kind": None, "protocol": None, "origin": None}


def rrl(*arguments):
    """(exit code, what it says in one line)"""
    result = CliRunner().invoke(cli.app, ["demos", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def reacher():
    return sets.load(sets.shipped()["mjrl_reacher"]).pick(range(COUNT))


@pytest.fixture(scope="module")
def exported(reacher, tmp_path_factory):
    """A dataset by `rrl demos export`, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("out")
    reacher.save(folder / "set.npz")
    out = folder / "arm reaches" / "v1"
    code, said = rrl(
        *("export", folder / "set.npz", out, "--format", "lerobot", "--size", SIDE, "--look", "fast"),
        *("--task", "reach the point"),
    )
    assert code == 0, said
    assert "2 episodes, 100 steps, 25 a second; pictures 32 x 32 of front" in said
    assert "observation.state: 7 numbers, the robot alone; the task in words: 'reach the point'" in said
    return out


@pytest.fixture
def copy(exported, tmp_path):
    """The dataset, to be changed."""
    return shutil.copytree(exported, tmp_path / "copy")


def changed(path, **columns):
    """Write a Parquet file again with other columns; None: without this one."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.drop_columns([name])
        table = table if values is None else table.append_column(name, pa.array(values))
    pq.write_table(table, path)


def test_a_set_comes_back_bit_for_bit(reacher, exported, tmp_path):
    code, said = rrl("import", exported, tmp_path / "back.npz")  # task and who acted stand in the dataset
    assert code == 0, said
    back = sets.load(tmp_path / "back.npz")
    for name in ("actions", "qpos", "qvel", "lengths"):
        assert np.array_equal(getattr(back, name), getattr(reacher, name)), name
    assert back.initial.keys() == reacher.initial.keys()
    assert (back.checksum(), back.contents()) == (reacher.checksum(), reacher.contents())
    assert back.facts["env"] == "mjrl_reacher" and back.facts["origin"] == "policy policy"
    assert np.allclose(back.facts["returns"], reacher.facts["returns"])
    lines = []
    take = {**TAKE, "origin": "me", "task": "peg_insertion"}  # who says something else is believed
    demo_imports.take_over(str(exported), tmp_path / "other.npz", lines.append, **take)
    other = sets.load(tmp_path / "other.npz")
    assert other.facts["env"] == "mjrl_peg_insertion" and other.facts["origin"] == "me"


def test_recorded_states_go_along_where_there_are_any(reacher, tmp_path):
    """Those of the recording, which a replay may miss; of sets without last states, all but these."""
    one = reacher.pick([0])
    for name, facts in (("whole", one.facts), ("cut", {**one.facts, demo_tools.LAST: "unknown"})):
        replace(one, qpos=one.qpos + np.float32(0.01), facts=facts).save(tmp_path / f"{name}.npz")
        exporting.export(str(tmp_path / f"{name}.npz"), tmp_path / name, print, size=16, look="fast")
        demo_imports.take_over(str(tmp_path / name), tmp_path / f"{name}_back.npz", print, **TAKE)
        back = sets.load(tmp_path / f"{name}_back.npz")
        assert (demo_tools.LAST in back.facts) == (name == "cut")
        apart = np.abs(back.qpos - one.qpos).max(axis=1)
        assert np.allclose(apart[:-1], 0.01, atol=1e-6)
        assert np.isclose(apart[-1], 0.01 if name == "whole" else 0, atol=1e-6)


def test_the_layout_is_lerobots(reacher, exported):
    info = json.loads((exported / "meta/info.json").read_text())
    features = info.pop("features")
    place = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "mjrl_reacher",
        "total_episodes": COUNT,
        "total_frames": COUNT * STEPS,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": "0:2"},
        "data_path": f"data/{place}.parquet",
        "video_path": f"videos/{{video_key}}/{place}.mp4",
    }
    assert isinstance(info["fps"], int)
    widths = {"action": 7, "observation.state": 7, "rrl.qpos": 7, "rrl.qvel": 7}
    assert {k: (v["dtype"], *v["shape"]) for k, v in features.items()} == {
        **{name: ("float32", n) for name, n in widths.items()},
        **dict.fromkeys(("next.reward", "timestamp"), ("float32", 1)),
        **dict.fromkeys(("next.done", "next.success"), ("bool", 1)),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), ("int64", 1)),
        CAMERA: ("video", SIDE, SIDE, 3),
    }
    assert features[CAMERA]["names"] == ["height", "width", "channels"]
    assert features[CAMERA]["info"]["video.fps"] == FPS and not features[CAMERA]["info"]["has_audio"]

    table = pq.read_table(exported / DATA)
    kinds = {"float32": pa.float32(), "bool": pa.bool_(), "int64": pa.int64()}
    for name, feature in features.items():
        if name != CAMERA:
            (n,), kind = feature["shape"], kinds[feature["dtype"]]
            assert table.schema.field(name).type == (kind if n == 1 else pa.list_(kind, n)), name
    assert set(table.column_names) == features.keys() - {CAMERA}
    data = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    assert np.array_equal(data["action"], reacher.actions)
    assert np.array_equal(data["index"], np.arange(COUNT * STEPS))
    assert np.array_equal(data["frame_index"], np.tile(np.arange(STEPS), COUNT))
    assert np.array_equal(data["timestamp"], np.float32(data["frame_index"] / FPS))
    assert np.array_equal(data["next.done"], data["frame_index"] == STEPS - 1)
    assert np.array_equal(data["next.success"], reacher.flags["success"])
    returns = data["next.reward"].reshape(COUNT, STEPS).sum(axis=1)
    assert np.allclose(returns, reacher.facts["returns"], rtol=1e-5)
    assert np.array_equal(data["observation.state"], data["rrl.qpos"])  # the joints
    assert not data["task_index"].any()
    assert pandas.read_parquet(exported / "meta/tasks.parquet").task_index.to_dict() == {"reach the point": 0}

    rows = pq.read_table(exported / ROWS).to_pylist()
    for i, row in enumerate(rows):
        assert (row["episode_index"], row["length"], row["tasks"]) == (i, STEPS, ["reach the point"])
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (i * STEPS, (i + 1) * STEPS)
        film = {k: row[f"videos/{CAMERA}/{k}"] for k in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
        assert list(film.values()) == [0, 0, i * STEPS / FPS, (i + 1) * STEPS / FPS]
        assert [row[f"{at}/{k}_index"] for at in ("data", "meta/episodes") for k in ("chunk", "file")] == [0] * 4
        assert np.allclose(row["stats/action/max"], reacher.actions[i * STEPS : (i + 1) * STEPS].max(axis=0))
        assert np.shape(row[f"stats/{CAMERA}/mean"]) == (3, 1, 1) and row[f"stats/{CAMERA}/count"] == [STEPS]


def pictures(path):
    """(frames [T, H, W, 3], seconds [T], which are key frames [T]) of a film."""
    with av.open(str(path)) as film:
        frames = [(f.to_ndarray(format="rgb24"), f.time, f.key_frame) for f in film.decode(video=0)]
    return [np.array(part) for part in zip(*frames, strict=True)]


def test_the_film_shows_what_the_camera_sees_before_each_action(reacher, exported):
    shown, seconds, keys = pictures(exported / f"videos/{CAMERA}/chunk-000/file-000.mp4")
    assert shown.shape == (COUNT * STEPS, SIDE, SIDE, 3)
    assert np.allclose(seconds, np.arange(COUNT * STEPS) / FPS, atol=1e-6)
    assert keys[::2].all()
    env = build(sets.environment(reacher.facts).filmed((), "fast"))
    sim, seen = env.make_one(FrameRequest(SIDE, SIDE)), []
    for i in range(COUNT):
        script = reacher.script(i)
        seen.append(sim.reset(options={"initial": script.initial})[0]["frames"].copy())
        seen += [sim.step(action)[0]["frames"].copy() for action in script.actions[:-1]]
    sim.close()
    seen = np.stack(seen).astype(float)
    apart = np.abs(shown - seen).mean(axis=(1, 2, 3))
    assert apart.max() < 4  # of 255
    moves = np.abs(np.diff(seen, axis=0)).mean(axis=(1, 2, 3)) > 0.5
    assert moves.sum() > 10
    assert (apart[1:] < np.abs(shown[1:] - seen[:-1]).mean(axis=(1, 2, 3)))[moves].all()  # not the picture before
    stats = json.loads((exported / "meta/stats.json").read_text())
    channels = seen / 255
    for name, expected in {
        "min": channels.min(axis=(0, 1, 2)),
        "max": channels.max(axis=(0, 1, 2)),
        "mean": channels.mean(axis=(0, 1, 2)),
        "std": channels.std(axis=(0, 1, 2)),
        "q90": np.quantile(channels, 0.9, axis=(0, 1, 2)),
    }.items():
        assert np.allclose(np.ravel(stats[CAMERA][name]), expected, atol=1e-6 if name != "q90" else 1 / 255), name
    assert np.allclose(stats["action"]["mean"], reacher.actions.mean(axis=0), atol=1e-6)
    assert np.allclose(stats["action"]["q10"], np.quantile(reacher.actions, 0.1, axis=0), atol=1e-6)
    assert all(len(each["count"]) == 1 for each in stats.values())


def test_state_may_hold_the_tasks_objects(reacher, tmp_path):
    reacher.pick([0]).save(tmp_path / "one.npz")
    lines = []
    exporting.export(
        str(tmp_path / "one.npz"), tmp_path / "out", lines.append, size=16, look="fast", state="task", fps=7
    )
    assert "20 numbers, all that the environment observes" in lines[-1]
    assert json.loads((tmp_path / "out/meta/info.json").read_text())["fps"] == 7
    assert pq.read_schema(tmp_path / "out" / DATA).field("observation.state").type == pa.list_(pa.float32(), 20)


def test_a_task_of_ones_own_without_cameras(tmp_path):
    starts, actions = np.array([[0.5], [-0.25]]), np.linspace(-1, 1, 10).reshape(2, 5, 1)
    np.savez(tmp_path / "plain_point.npz", actions=actions, init_qpos=starts, init_qvel=0 * starts)
    with point.registered():
        lines = []
        take = {**TAKE, "origin": "somebody"}
        demo_imports.take_over(str(tmp_path / "plain_point.npz"), tmp_path / "set.npz", lines.append, **take)
        exporting.export(str(tmp_path / "set.npz"), tmp_path / "out", lines.append)
        assert any("doesn't say how long a step takes: 30 steps a second" in line for line in lines)
        assert not (tmp_path / "out/videos").exists()
        assert json.loads((tmp_path / "out/meta/info.json").read_text())["video_path"] is None
        demo_imports.take_over(str(tmp_path / "out"), tmp_path / "back.npz", lines.append, **TAKE)
    demos, back = (sets.load(tmp_path / name) for name in ("set.npz", "back.npz"))
    assert back.contents() == demos.contents() and back.facts["origin"] == "somebody"
    with pytest.raises(UserError, match=r"the environment of toy_plain_point again(.|\n)*--task"):
        demo_imports.take_over(str(tmp_path / "out"), tmp_path / "b.npz", print, **TAKE)


def test_how_many_steps_a_second():
    lines = []
    assert exporting._fps(build(find_task("door")), None, lines.append) == 100
    assert exporting._fps(Gymnasium(Gymnasium.Config(id="Pusher-v5")), None, lines.append) == 20
    assert not lines
    pytest.importorskip("dm_control")
    assert exporting._fps(build(find_task("cartpole_swingup")), None, lines.append) == 12
    assert "makes 12.5 steps a second; LeRobot takes whole numbers: 12 are written" in lines[0]


def test_long_sets_take_several_films(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot, "LONGEST", 1)
    lengths, fps = [8, 4, 20, 3], 10  # they begin at 0, 0.8, 1.2 and 3.2 s
    cameras = exporting._plain(["top view", "top-view"])
    plan = lerobot.Plan(lengths, fps, "go", "robot", cameras, 16, {"env": "x"})
    assert cameras == ["top_view_0", "top_view_1"]
    with lerobot.writing_dataset(tmp_path / "out", plan) as writer:
        for i, length in enumerate(lengths):
            for t in range(length):
                writer.picture(np.full((16, 16, 6), 10 * i + t, np.uint8))
            columns = {"action": np.zeros((length, 1), np.float32), "rrl.qpos": np.zeros((length, 1), np.float32)}
            writer.end_episode(columns, {"rrl/initial/place": [[i, 2.5], [3.0, 4.0]]})
    rows = pq.read_table(tmp_path / "out" / ROWS).to_pylist()
    for camera in cameras:
        key = f"videos/observation.images.{camera}"
        assert [row[f"{key}/file_index"] for row in rows] == [0, 0, 1, 2]
        assert [row[f"{key}/from_timestamp"] for row in rows] == [0, 0.8, 0, 0]
        assert [row[f"{key}/to_timestamp"] for row in rows] == [0.8, 1.2, 2, 0.3]
        films = [len(pictures(tmp_path / "out" / f"{key}/chunk-000/file-00{k}.mp4")[0]) for k in range(3)]
        assert films == [12, 20, 3]
    assert pq.read_schema(tmp_path / "out" / DATA).field("action").type == pa.float32()  # as LeRobot has it
    episodes = importers.read(str(tmp_path / "out"))
    assert [e.actions.shape for e in episodes] == [(n, 1) for n in lengths]
    assert np.array_equal(episodes[3].initial["place"], [[3, 2.5], [3, 4]])


def test_nothing_is_left_of_an_export_that_ends_early(reacher, tmp_path, monkeypatch):
    reacher.save(tmp_path / "set.npz")
    add, left = lerobot.Film.add, [60]

    def full(film, picture):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        add(film, picture)

    monkeypatch.setattr(lerobot.Film, "add", full)
    with pytest.raises(KeyboardInterrupt):
        exporting.export(str(tmp_path / "set.npz"), tmp_path / "out", print, size=16, look="fast")
    assert {path.name for path in tmp_path.iterdir()} == {"set.npz", "set.json"}


def test_what_can_not_be_exported_is_said_before(reacher, exported, tmp_path, monkeypatch):
    reacher.save(tmp_path / "set.npz")

    def refused(*options, out=tmp_path / "out"):
        code, said = rrl("export", tmp_path / "set.npz", out, *options)
        assert code == 2, said
        assert not (tmp_path / "out").exists()
        return said

    ours = ("--format", "lerobot")
    assert "exists already" in refused(*ours, out=exported)
    assert "take 34" in refused(*ours, "--size", "33")
    assert "no setting 'cameras'" in refused(*ours, "--camera", "nowhere")
    assert "minari or lerobot; got 'rlds'" in refused("--format", "rlds")
    assert "robot or task; got 'all'" in refused(*ours, "--state", "all")
    assert "--size is of --format lerobot alone" in refused("--size", "64")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'rrl[lerobot]'" in refused(*ours)
    assert "pip install 'rrl[lerobot]'" in rrl("import", exported, tmp_path / "back.npz")[1]


# --- other people's datasets -------------------------------------------------------------------------


def by_lerobot(folder, episodes, *, version="v3.0", robot=None, **features):
    """A dataset as LeRobot writes it: v3 all steps in a file, v2 an episode in each; `features` [E][L, n]."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    about = {"codebase_version": version, "robot_type": robot, "fps": 25, "features": {}}
    (folder / "meta/info.json").write_text(json.dumps(about))
    tables = []
    for i, actions in enumerate(episodes):
        columns = {"action": actions, **{name.replace("__", "."): values[i] for name, values in features.items()}}
        steps = np.arange(len(actions))
        tables.append(
            pa.table(
                {k: pa.array(list(np.float32(v)) if v.ndim > 1 else v) for k, v in columns.items()}
                | {"frame_index": steps, "episode_index": 0 * steps + i, "timestamp": np.float32(steps / 25)}
                | {"observation.image": [{"bytes": b"png", "path": None}] * len(steps)}
            )
        )
    if version.startswith("v3"):
        pq.write_table(pa.concat_tables(tables[::-1]), folder / DATA)  # in whatever order
    else:
        for i, table in enumerate(tables):
            pq.write_table(table, folder / f"data/chunk-000/episode_{i:06d}.parquet")
    return folder


def parts(reacher):
    """Actions, and features from which a simulator's dataset can be replayed."""
    rows = [slice(i * STEPS, (i + 1) * STEPS) for i in range(COUNT)]
    states = [reacher.states(i) for i in range(COUNT)]
    return [reacher.actions[row] for row in rows], {
        "observation__qpos": [qpos[:-1] for qpos, _ in states],
        "observation__qvel": [qvel[:-1] for _, qvel in states],
        "info__target_pos": [np.tile(target, (STEPS, 1)) for target in reacher.initial["target_pos"]],
    }


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_simulators_dataset_is_replayed(reacher, tmp_path, version):
    actions, features = parts(reacher)
    folder = by_lerobot(tmp_path / "reacher", actions, version=version, **features)
    lines = []
    demo_imports.take_over(str(folder), tmp_path / "back.npz", lines.append, **TAKE)
    back = sets.load(tmp_path / "back.npz")
    assert back.facts["origin"] == "human"
    assert np.array_equal(back.actions, reacher.actions)
    assert np.array_equal(back.initial["qpos"], np.float32(reacher.initial["qpos"]))
    assert np.allclose(back.qpos, reacher.qpos, atol=1e-3)
    assert np.array_equal(back.flags["success"], reacher.flags["success"])


def test_a_robots_dataset_can_not_be_replayed(reacher, tmp_path):
    actions, _ = parts(reacher)
    state = {"observation__state": [np.zeros((STEPS, 6))] * COUNT}
    folder = by_lerobot(tmp_path / "reacher", actions, robot="so100", **state)
    code, said = rrl("import", folder, tmp_path / "back.npz")
    assert code == 2
    assert "does not say in which state of the simulator its episodes begin" in said
    assert "action (7,), observation.state (6,), timestamp (1,); robot so100" in said
    assert ".qpos and .qvel" in said and "Recordings of a real robot can't be replayed" in said
    assert not (tmp_path / "back.npz").exists()


def test_what_is_wrong_with_a_dataset_is_said(reacher, copy, tmp_path, monkeypatch):
    def refused(source=copy):
        code, said = rrl("import", source, tmp_path / "back.npz", "--format", "lerobot", "--task", "reacher")
        assert code == 2, said
        assert not (tmp_path / "back.npz").exists()
        return said

    data, rows, info = ((copy / name).read_bytes() for name in (DATA, ROWS, "meta/info.json"))
    assert "no LeRobotDataset: it has no meta/info.json" in refused(tmp_path)
    for text in ("", "[1", '{"fps": 25}', "[]"):
        (copy / "meta/info.json").write_text(text)
        assert "can't be read as lerobot, it may be damaged" in refused()
    (copy / "meta/info.json").write_text('{"codebase_version": "v1.6"}')
    assert "is a LeRobotDataset v1.6, where v2 and v3 are read" in refused()
    (copy / "meta/info.json").write_bytes(info)
    for name, whole in ((DATA, data), (ROWS, rows)):
        for damaged in (b"", b"junk", whole[:-100], whole[: len(whole) // 2] + whole[len(whole) // 2 + 50 :]):
            (copy / name).write_bytes(damaged)
            assert "can't be read as lerobot, it may be damaged" in refused()
        (copy / name).write_bytes(whole)
    table = pq.read_table(copy / DATA)
    pq.write_table(table.filter(pa.array([t != 70 for t in range(table.num_rows)])), copy / DATA)
    assert "episode 1: its steps are not numbered 0, 1, 2" in refused()
    pq.write_table(table, copy / DATA)
    for column, missing in (("action", None), ("action", [[0.0] * (1 + t % 2) for t in range(table.num_rows)])):
        changed(copy / DATA, **{column: missing})
        assert "need action" in refused()
        pq.write_table(table, copy / DATA)
    changed(copy / DATA, action=[[None if t == 60 else 0.1] * 7 for t in range(table.num_rows)])
    assert "episode 1: actions holds numbers that are not finite" in refused()
    pq.write_table(table, copy / DATA)
    names = [name for name in pq.read_schema(copy / ROWS).names if name.startswith("rrl/")]
    changed(copy / ROWS, **dict.fromkeys(names))
    assert "LeRobot's tools that split, merge or delete" in refused()
    (copy / ROWS).write_bytes(rows)
    (copy / DATA).unlink()
    assert "0 files have nothing in common" in refused()
    (copy / DATA).write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr(base, "LIMIT", 1000)
        assert "GB of numbers" in refused()
    (copy / "meta/rrl.json").write_text("junk")  # tells the task alone
    assert rrl("import", copy, tmp_path / "back.npz", "--task", "reacher")[0] == 0
