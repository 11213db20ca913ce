"""Other people's demonstrations: every format gives the same set, and no file runs or reads anything else."""

import io
import json
import pickle
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rrl import cli
from rrl.commands import demo_imports
from rrl.commands import demos as demo_tools
from rrl.demos import importers, sets
from rrl.demos.importers.base import jumps
from rrl.demos.importers.hdf5 import check_hdf5
from rrl.registry import UserError

h5py = pytest.importorskip("h5py")
COUNT = 2
"""Episodes in `made`, of conftest.py."""


def as_pickle(path, episodes, protocol):
    data = [
        {
            "actions": e["actions"].astype(np.float64),
            "observations": np.zeros((len(e["actions"]), 39)),
            "rewards": np.zeros(len(e["actions"])),
            "init_state_dict": {**e["initial"], "extra": np.ones(3)},
        }
        for e in episodes
    ]
    path.write_bytes(pickle.dumps(data, protocol))
    return path


def as_npz(path, episodes):
    longest = max(len(e["actions"]) for e in episodes) + 7  # padded
    actions = np.zeros((COUNT, longest, 28))
    for i, e in enumerate(episodes):
        actions[i, : len(e["actions"])] = e["actions"]
    initial = {f"init_{k}": np.stack([e["initial"][k] for e in episodes]) for k in episodes[0]["initial"]}
    np.savez(path, actions=actions, length=[len(e["actions"]) for e in episodes], **initial)
    return path


def as_robomimic(path, episodes):
    with h5py.File(path, "w") as file:
        for i, e in enumerate(episodes):
            group = file.create_group(f"data/demo_{i}")
            group["actions"] = e["actions"]
            rows = slice(0, len(e["actions"]))
            time = np.arange(len(e["actions"]))[:, None] * 0.01
            group["states"] = np.concatenate([time, e["qpos"][rows], e["qvel"][rows]], axis=1)
            group.attrs["init_door_body_pos"] = e["initial"]["door_body_pos"]
    return path


def as_d4rl(path, episodes):
    with h5py.File(path, "w") as file:
        lengths = [len(e["actions"]) for e in episodes]
        file["actions"] = np.concatenate([e["actions"] for e in episodes])
        ends = np.zeros(sum(lengths), bool)
        ends[np.cumsum(lengths) - 1] = True
        file["timeouts"] = ends
        for name in ("qpos", "qvel"):
            file[f"infos/{name}"] = np.concatenate([e[name][:-1] for e in episodes])
        file["infos/door_body_pos"] = np.concatenate(
            [np.tile(e["initial"]["door_body_pos"], (n, 1)) for e, n in zip(episodes, lengths, strict=True)]
        )
    return path


def as_robohive(path, episodes):
    """A trace of robohive: a state before each action, and a last one with NaN as its action."""
    with h5py.File(path, "w") as file:
        for i in reversed(range(len(episodes))):
            e = episodes[i]
            group = file.create_group(f"Trial{i}")
            group["actions"] = np.concatenate([e["actions"], np.full((1, 28), np.nan)])
            rows = len(e["actions"]) + 1
            group["time"] = group["env_infos/time"] = np.arange(rows) * 0.01
            group["observations"] = np.zeros((rows, 0))
            state = {**e["initial"], "body_pos": np.zeros((9, 3)), "time": 0.0}
            for name, values in state.items():
                group[f"env_infos/state/{name}"] = np.stack([values] * rows)
            for name in ("qpos", "qvel"):
                group[f"env_infos/state/{name}"][1:] = e[name][1:]
    return path


def as_robohive_pickle(path, episodes):
    """The same trace as a pickle, flattened as robohive does it."""
    trace = {}
    with h5py.File(as_robohive(path.with_suffix(".h5"), episodes), "r") as file:
        for i in range(len(episodes)):
            trial = trace[f"Trial{i}"] = {}
            file[f"Trial{i}"].visititems(lambda k, v, t=trial: t.update({k: v[()]} if hasattr(v, "dtype") else {}))
    path.write_bytes(pickle.dumps({"Rollouts": trace}))
    return path


WRITERS = {
    "dapg0": lambda p, e: as_pickle(p / "door.pickle", e, 0),
    "dapg2": lambda p, e: as_pickle(p / "door.pickle", e, 2),
    "dapg5": lambda p, e: as_pickle(p / "door.pkl", e, 5),
    "npz": lambda p, e: as_npz(p / "door.npz", e),
    "robomimic": lambda p, e: as_robomimic(p / "door.hdf5", e),
    "robohive": lambda p, e: as_robohive(p / "door.h5", e),
    "robohive_pickle": lambda p, e: as_robohive_pickle(p / "door.pickle", e),
    "d4rl": lambda p, e: as_d4rl(p / "door_d4rl.h5", e),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_set(tmp_path, episodes, made, kind):
    lines = []
    out = tmp_path / "out.npz"
    source = WRITERS[kind](tmp_path, episodes)
    demo_imports.take_over(str(source), out, lines.append, task=None, kind=None, protocol="paper", origin="human")
    got = sets.load(out)
    assert np.array_equal(got.actions, made.actions)
    assert np.array_equal(got.lengths, made.lengths)
    assert np.array_equal(got.initial["door_body_pos"], made.initial["door_body_pos"])
    for flag in made.flags:
        assert np.array_equal(got.flags[flag], made.flags[flag])
    assert np.allclose(got.qpos, made.qpos, atol=1e-3)  # the same bits where MuJoCo is the recorded one
    assert got.origin == "human"
    assert "2 episodes of 200 to 200 steps; success 100.0 %" in lines[-1]
    assert demo_tools.verify(str(out), lines.append)


def test_the_extra_for_demonstrations_reads_and_downloads_minari_datasets():
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (line,) = [line for line in extras["optional-dependencies"]["demos"] if line.startswith("minari")]
    assert {"hdf5", "hf"} <= set(re.match(r"minari\[(.*?)\]", line)[1].split(","))


def test_minari_round_trip(tmp_path, made, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source, out = tmp_path / "mine.npz", tmp_path / "back.npz"
    made.save(source)
    lines = []
    demo_tools.export(str(source), "rrl/door/expert-v0", lines.append)
    dataset = minari.load_dataset("rrl/door/expert-v0")
    assert dataset.total_episodes == COUNT
    assert dataset[0].observations.shape == (201, 39)
    assert dataset[0].infos["success"][-1]
    with pytest.raises(UserError, match="already"):
        demo_tools.export(str(source), "rrl/door/expert-v0", lines.append)
    demo_imports.take_over("rrl/door/expert-v0", out, lines.append, task=None, kind=None, protocol="paper", origin="x")
    back = sets.load(out)
    for name in ("actions", "qpos", "qvel", "lengths"):
        assert np.array_equal(getattr(back, name), getattr(made, name)), name
    with pytest.raises(UserError, match="no Minari dataset"):
        importers.read("rrl/door/nothing-v0", "minari")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not installed, as after `make setup`
    monkeypatch.delitem(sys.modules, "minari.storage.remotes.huggingface", raising=False)
    result = CliRunner().invoke(cli.app, ["demos", "import", "D4RL/door/human-v2", str(tmp_path / "door.npz")])
    assert result.exit_code == 2, result.output
    assert "pip install 'rrl[demos]'" in " ".join(result.output.split())
    for name in ("pen", "../pen-v0"):
        with pytest.raises(UserError, match="a Minari id looks like"):
            demo_tools.export(str(source), name, lines.append)


def test_a_minari_dataset_runs_nothing(tmp_path, made, monkeypatch):
    """Without spaces in its metadata, the library would make the environment that the file names."""
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    made.pick([0]).save(tmp_path / "one.npz")
    demo_tools.export(str(tmp_path / "one.npz"), "door/evil-v0", print)
    path = tmp_path / "minari" / "door" / "evil-v0" / "data" / "metadata.json"
    about = json.loads(path.read_text())
    spec = {
        "id": "Evil-v0",
        "entry_point": "subprocess:run",
        "kwargs": {"args": ["touch", str(tmp_path / "mark")]},
        "additional_wrappers": [],
        "vector_entry_point": None,
    }
    about = {k: v for k, v in about.items() if not k.endswith("_space")} | {"env_spec": json.dumps(spec)}
    path.write_text(json.dumps(about))
    assert len(importers.read("door/evil-v0")) == 1  # HDF5 decodes itself
    path.write_text(json.dumps(about | {"data_format": "arrow"}))
    with pytest.raises(UserError, match=r"does not describe its observation_space.*refused"):
        importers.read("door/evil-v0")
    assert not (tmp_path / "mark").exists()


def test_d4rl_episodes_end_at_either_flag(tmp_path):
    def lengths(**flags):
        with h5py.File(tmp_path / "pen.hdf5", "w") as file:
            file["actions"] = np.zeros((20, 24))
            for name in ("qpos", "qvel"):
                file[f"infos/{name}"] = np.zeros((20, 30))
            file["infos/action_log_std"] = np.full((20, 24), -np.inf)  # nothing that a replay needs
            file["observations"] = np.zeros((20, 8, 8, 3))
            for name, steps in flags.items():
                file[name] = np.isin(np.arange(20), steps)
        return [len(each.actions) for each in importers.read(str(tmp_path / "pen.hdf5"))]

    assert lengths(timeouts=[9, 19], terminals=[8, 9]) == [10, 10]
    assert lengths(timeouts=[9, 19], terminals=[4]) == [5, 5, 10]
    assert lengths(timeouts=[19], terminals=[4, 9]) == [5, 5, 10]
    assert lengths(timeouts=[9]) == [10, 10]
    assert lengths(terminals=[7, 8, 9]) == [10, 10]
    assert lengths() == [20]


def d4rl_with(path, pieces, **flags):
    """D4RL's layout from pieces (qpos, qvel) of episodes, without flags but those at these steps."""
    qpos, qvel = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
    with h5py.File(path, "w") as file:
        file["actions"] = np.zeros((len(qpos), 28))
        file["infos/qpos"], file["infos/qvel"] = qpos, qvel
        for name, steps in flags.items():
            file[name] = np.isin(np.arange(len(qpos)), steps)
    return str(path)


def test_episodes_that_no_flag_parts_are_refused(tmp_path):
    """Each of Adroit's episodes passes; two of them without a flag in between don't, in whatever format."""
    for name in (name for name in sets.shipped() if name.startswith("adroit")):
        demos = sets.load(sets.shipped()[name])
        states = [tuple(values[:-1] for values in demos.states(i)) for i in range(len(demos))]
        lengths = [len(qpos) for qpos, _ in states]
        ends = (np.cumsum(lengths) - 1).tolist()
        both = {"terminals": ends[::2], "timeouts": ends[1::2]}
        found = importers.read(d4rl_with(tmp_path / "door.hdf5", states, **both))
        assert [len(each.actions) for each in found] == lengths, name
        for i in range(len(states) - 1):
            missing = {"timeouts": [end for end in ends if end != ends[i]]}
            with pytest.raises(UserError, match=rf"qpos jumps .* to {lengths[i]}, .*two episodes"):
                importers.read(d4rl_with(tmp_path / "door.hdf5", states, **missing))
        # Dropped early, and terminal at the first step after the next reset too: a jump parts neighbouring terminals.
        first, rest = tuple(v[:56] for v in states[0]), states[1:3]
        terminals = [55, 56, 55 + lengths[1]]
        pieces = importers.read(d4rl_with(tmp_path / "door.hdf5", [first, *rest], terminals=terminals, timeouts=[]))
        assert [len(each.actions) for each in pieces] == [56, 1, lengths[1] - 1, lengths[2]]
    qpos, qvel = (np.concatenate(pair)[None] for pair in zip(*states[:2], strict=True))
    initial = {"init_qpos": qpos[:, 0], "init_qvel": qvel[:, 0]}
    for more in ({"qvel": qvel}, {}):
        np.savez(tmp_path / "a.npz", actions=np.zeros((1, qpos.shape[1], 28)), qpos=qpos, **initial, **more)
        with pytest.raises(UserError, match="qpos jumps"):
            importers.read(str(tmp_path / "a.npz"))


def test_fast_motion_is_no_jump():
    """A joint that starts to spin, a blow, whole turns, long steps; the same positions with a reset in them are one."""
    seconds = 0.02
    speed = np.zeros((100, 2))
    speed[50:, 0] = np.linspace(0, 40, 50)  # up to 0.8 rad a step
    speed[30:33, 1] = 25.0
    angle = np.cumsum(speed * seconds, axis=0)
    assert not jumps(angle, speed).any()
    assert not jumps((angle + np.pi) % (2 * np.pi) - np.pi, speed).any()
    reset = angle.copy()
    reset[20:, 1] += 2.5
    assert np.flatnonzero(jumps(reset, speed)).tolist() == [19]
    swing = np.random.default_rng(0).normal(size=(50, 2))
    assert not jumps(swing, swing * 4).any()  # steps of a quarter of a second


def huge(group, name, steps):
    """Camera pictures of many GB that are claimed and nowhere stored."""
    group.create_dataset(name, (steps, 4096, 4096, 3), "u1", chunks=(1, 64, 64, 3), fillvalue=7)


def test_pictures_in_hdf5_are_left_unread(tmp_path, episodes, monkeypatch):
    plain = {}
    for kind, write in (("robomimic", as_robomimic), ("robohive", as_robohive), ("d4rl", as_d4rl)):
        path = write(tmp_path / f"{kind}.hdf5", episodes)
        plain[kind] = importers.read(str(path))
        with h5py.File(path, "a") as file:
            for i in range(COUNT if kind != "d4rl" else 0):
                group = file[f"data/demo_{i}" if kind == "robomimic" else f"Trial{i}"]
                huge(group, "obs/agentview_image", 200)
                huge(group, "image", 200)
                group.attrs["model_file"] = "<mujoco/>"
            if kind == "d4rl":
                huge(file, "observations", 400)
                huge(file, "infos/camera", 400)
                huge(file, "next_observations", 400)
            elif kind == "robohive":
                huge(file, "Trial0/env_infos/state/camera", 200)
    read = h5py.Dataset.__getitem__
    pictures = []

    def watched(self, *arguments):
        pictures.extend([self.name] if len(self.shape) > 3 else [])
        return read(self, *arguments)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    for kind, before in plain.items():
        after = importers.read(str(tmp_path / f"{kind}.hdf5"))
        assert not pictures, kind
        for old, new in zip(before, after, strict=True):
            assert np.array_equal(old.actions, new.actions) and np.array_equal(old.qpos, new.qpos)
            assert set(old.initial) == set(new.initial)


def test_pictures_of_a_minari_dataset_count_as_stored(tmp_path):
    """The library reads whole episodes, one at a time."""
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        for i in range(5):
            group = file.create_group(f"episode_{i}")
            group["actions"] = np.zeros((20, 28))
            huge(group, "observations/camera", 50)  # 2.5 GB
        check_hdf5("it", file)
        huge(file["episode_3"], "observations/wrist", 50)
        with pytest.raises(UserError, match="claims 5 GB"):
            check_hdf5("it", file)
        del file["episode_3"]
        file["episode_3"] = file["episode_2"]
        with pytest.raises(UserError, match="two names"):
            check_hdf5("it", file)
        del file["episode_3"]
        file["episode_4/link"] = h5py.ExternalLink("/etc/passwd", "/")
        with pytest.raises(UserError, match="link"):
            check_hdf5("it", file)


def test_robohive_says_what_is_missing(tmp_path, episodes):
    path = as_robohive(tmp_path / "door.h5", episodes)
    with h5py.File(path, "a") as file:
        del file["Trial1/env_infos/state/qvel"]
    with pytest.raises(UserError, match=r"Trial1: env_infos/state needs qpos and qvel .*compress_paths"):
        importers.read(str(path))


def test_odd_actions_are_told(tmp_path, episodes):
    def told(change):
        path = as_npz(tmp_path / "door.npz", [{**e, "actions": change(e["actions"].copy())} for e in episodes])
        return list(importers.odd_actions(importers.read(str(path))))

    def scaled(actions):
        actions[5, 3] = 3.0
        return actions

    def still(actions):
        actions[:, 4] = 0.5
        return actions

    assert told(lambda a: np.clip(a, -1, 1)) == []
    out, scale = told(lambda a: scaled(np.clip(a, -1, 1)))
    assert "2 of 11200 numbers in the actions" in out and "in 2 of 2 episodes" in out and "largest is 3" in out
    assert "the largest action is 3 in each episode" in scale
    (small,) = told(lambda a: np.clip(a, -1, 1) / 50)
    assert "the largest action is 0.02 in each episode" in small
    (line,) = told(lambda a: still(np.clip(a, -1, 1)))
    assert "1 of 28 dimensions of the actions never change: 4 (always 0.5)" in line


def test_last_states_that_nobody_recorded_are_no_recording(tmp_path, episodes):
    """robomimic and D4RL keep a state before each action and none after the last."""
    moved = [{**e, "qpos": e["qpos"] + 0.5} for e in episodes]
    lines = []
    settings = {"task": None, "kind": None, "protocol": "paper", "origin": "human"}
    demo_imports.take_over(str(as_d4rl(tmp_path / "door.hdf5", moved)), tmp_path / "out.npz", lines.append, **settings)
    demo_tools.verify(str(tmp_path / "out.npz"), lines.append)
    told = [line for line in lines if line.startswith("positions differ")]
    assert len(told) == 2
    assert not any("0 at the end" in line.split("half-way")[1][:8] for line in told)


def test_an_hdf5_file_shows_no_other_files(tmp_path, episodes):
    """External storage would put any file of the machine into a set that its maker then publishes."""
    secret, path = tmp_path / "secret", tmp_path / "door.hdf5"
    secret.write_bytes(bytes(range(240)))

    def read(change):
        as_d4rl(path, episodes)
        with h5py.File(path, "a") as file:
            change(file)
        return importers.read(str(path))

    assert len(read(lambda file: None)) == len(episodes)
    virtual = h5py.VirtualLayout((3, 3), "f8")
    virtual[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3, 3))
    for change, message in (
        (
            lambda f: f.create_dataset("infos/x", (10, 3), "f8", external=[(str(secret), 0, 240)]),
            "another file",
        ),
        (lambda f: f.create_virtual_dataset("infos/x", virtual), "another file"),
        (lambda f: f.update({"infos/x": h5py.ExternalLink(str(secret), "/")}), "link"),
        (lambda f: f.update(observations=h5py.SoftLink("/x")), "link"),
        (lambda f: f.create_dataset("terminals", (10**11,), "f8", chunks=(1000,)), "claims 8"),
    ):
        with pytest.raises(UserError, match=message):
            read(change)
    for change in (  # nothing that a replay needs: not followed, not counted
        lambda f: f.update(x=h5py.ExternalLink(str(secret), "/")),
        lambda f: f.update(x=h5py.SoftLink("/x")),
        lambda f: f.update(x=f["infos"]),
        lambda f: f.create_dataset("x", (10**11,), "f8", chunks=(1000,)),
    ):
        assert len(read(change)) == len(episodes)


def test_an_npz_cannot_claim_the_memory(tmp_path):
    path = tmp_path / "door.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**7, 10**3, 10**3)})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("actions.npy", head.getvalue())
    with pytest.raises(UserError, match="claims 80,000 GB"):
        importers.read(str(path))


def test_pictures_in_an_npz_are_left_unread(tmp_path, episodes):
    path = as_npz(tmp_path / "door.npz", episodes)
    with zipfile.ZipFile(path, "a") as file:
        for name, shape in (("images", (2, 207, 2048, 2048, 3)), ("init_image", (2, 2048, 2048, 3))):
            head = io.BytesIO()  # without its bytes: to read it would fail
            np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.writestr(f"{name}.npy", head.getvalue())
    assert set(importers.read(str(path))[0].initial) == set(episodes[0]["initial"])


def test_what_is_wrong_is_said(tmp_path, episodes, made, monkeypatch):
    def read(**arrays):
        np.savez(tmp_path / "door.npz", **arrays)
        return importers.read(str(tmp_path / "door.npz"))

    actions = np.zeros((2, 5, 28))
    with pytest.raises(UserError, match="needs `actions`"):
        read(nothing=np.zeros(3))
    with pytest.raises(UserError, match="from 1 to 5; got"):
        read(actions=actions, init_qpos=np.zeros((2, 30)), length=[5, 6])
    for bad in (np.nan, 1e300):
        with pytest.raises(UserError, match="not finite"):
            read(actions=np.full((2, 5, 28), bad), init_qpos=np.zeros((2, 30)))
    with pytest.raises(UserError, match="init_qpos must be of 2 episodes"):
        read(actions=actions, init_qpos=np.zeros((1, 30)))
    with pytest.raises(UserError, match="qpos must have a row for each"):
        read(actions=actions, init_qpos=np.zeros((2, 30)), qpos=np.zeros((2, 9, 30)))
    assert read(actions=actions, init_qpos=np.zeros((2, 30)), meta=np.array([{}]), qpos=np.zeros(3))[0].qpos is None
    for junk in (b"", b"junk", b"PK\x03\x04 cut"):
        (tmp_path / "door.npz").write_bytes(junk)
        with pytest.raises(UserError, match="plain arrays"):
            importers.read(str(tmp_path / "door.npz"))
    with pytest.raises(UserError, match="no arrays of numbers"):
        read(actions=np.array([{}]))
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file.create_group("data/demo_0/actions")
    with pytest.raises(UserError, match="has no actions"):
        importers.read(str(tmp_path / "empty.hdf5"))
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file["actions"] = np.zeros((3, 28))
        file["infos"] = np.zeros(3)
    with pytest.raises(UserError, match="no infos/qpos"):
        importers.read(str(tmp_path / "empty.hdf5"))
    (tmp_path / "set.bin").write_text("x")
    with pytest.raises(UserError, match="add --format"):
        importers.read(str(tmp_path / "set.bin"))
    with pytest.raises(UserError, match="no format zip"):
        importers.read(str(tmp_path / "set.bin"), "zip")
    with pytest.raises(UserError, match="there is no file"):
        importers.read(str(tmp_path / "missing.npz"))
    with pytest.raises(UserError, match="can't be read as hdf5"):
        importers.read(str(tmp_path / "set.bin"), "hdf5")
    made.save(tmp_path / "ours.npz")
    with pytest.raises(UserError, match="already; use it as it is"):
        importers.read(str(tmp_path / "ours.npz"))

    take = {"kind": None, "protocol": "paper", "origin": "human"}
    as_npz(tmp_path / "door.npz", episodes)
    with pytest.raises(UserError, match="lacks desired_orien"):
        demo_imports.take_over(str(tmp_path / "door.npz"), tmp_path / "a.npz", print, task="pen", **take)
    named = tmp_path / "open" / "my_door-v0.npz"  # an open folder is no pen
    named.parent.mkdir()
    named.write_bytes((tmp_path / "door.npz").read_bytes())
    demo_imports.take_over(str(named), tmp_path / "named.npz", lambda _: None, task=None, **take)
    (tmp_path / "unnamed.npz").write_bytes((tmp_path / "door.npz").read_bytes())
    monkeypatch.chdir(tmp_path)  # its folder's name may hold a task's
    with pytest.raises(UserError, match="--task"):
        demo_imports.take_over("unnamed.npz", tmp_path / "a.npz", print, task=None, **take)
    with pytest.raises(UserError, match="protocol"):
        take["protocol"] = "other"
        demo_imports.take_over(str(tmp_path / "door.npz"), tmp_path / "a.npz", print, task="door", **take)
    assert not (tmp_path / "a.npz").exists()


def test_drift_from_recorded_states_is_told(tmp_path, episodes):
    moved = [{**e, "qpos": e["qpos"] + 0.5} for e in episodes]
    lines = []
    demo_imports.take_over(
        str(as_robomimic(tmp_path / "door.hdf5", moved)),
        tmp_path / "out.npz",
        lines.append,
        task=None,
        kind=None,
        protocol="paper",
        origin="human",
    )
    assert any("positions differ from the recorded ones" in line for line in lines)


def test_noisy_demonstrations(tmp_path):
    lines = []
    demo_tools.make("adroit_door_expert", tmp_path / "a.npz", 1, seed=1, tries=2, say=lines.append, action_noise=0.05)
    demo_tools.make("adroit_door_expert", tmp_path / "b.npz", 1, seed=1, tries=2, say=lines.append)
    noisy, clean = sets.load(tmp_path / "a.npz"), sets.load(tmp_path / "b.npz")
    assert "0.05" in json.loads((tmp_path / "a.json").read_text())["actions"]
    first = noisy.actions[0] - clean.actions[0]  # the same start: the first actions differ by the noise alone
    assert 0.02 < first.std() < 0.1
    assert demo_tools.verify(str(tmp_path / "a.npz"), lines.append)


def test_film(tmp_path):
    import imageio.v3 as iio

    lines = []
    settings = {"cameras": ["top", "vil_camera"], "look": "fast", "size": 64, "every": 50}
    demo_tools.film("adroit_door_paper", tmp_path / "a.mp4", lines.append, chosen=[3, 0], by="actions", **settings)
    demo_tools.film("adroit_door_paper", tmp_path / "b.mp4", lines.append, chosen=[3, 0], by="states", **settings)
    a, b = (iio.imread(tmp_path / name, plugin="pyav") for name in ("a.mp4", "b.mp4"))
    assert a.shape == b.shape == (10, 64, 128, 3)  # steps 0, 50, ..., 200 of two episodes
    assert np.abs(a[:, 24:].astype(int) - b[:, 24:]).mean() < 6  # the same pictures, but for the video's losses
    with pytest.raises(UserError, match="exists already"):
        demo_tools.film("adroit_door_paper", tmp_path / "a.mp4", print, chosen=[0], by="states", **settings)
    with pytest.raises(UserError, match=r"an \.mp4; got"):
        demo_tools.film("adroit_door_paper", tmp_path / "c", print, chosen=[0], by="states", **settings)
    with pytest.raises(UserError, match="0 to 24; got none"):
        demo_tools.film("adroit_door_paper", tmp_path / "c.mp4", print, chosen=[], by="states", **settings)
    with pytest.raises(UserError, match="0 to 24"):
        demo_tools.film("adroit_door_paper", tmp_path / "c.mp4", print, chosen=[25], by="states", **settings)
    with pytest.raises(UserError, match="nowhere"):
        demo_tools.film(
            "adroit_door_paper",
            tmp_path / "c.mp4",
            print,
            chosen=[0],
            by="states",
            **settings | {"cameras": ["nowhere"]},
        )
