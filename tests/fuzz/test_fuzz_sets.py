"""Sets of demonstrations that were damaged or forged: each is read, and is one, or refused in words."""

import io
import json
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import mutants

from rrl.commands import demos as commands
from rrl.demos import Demos, DemoSet, sets
from rrl.demos.replay import NoPolicy, playback
from rrl.envs.adroit import Adroit
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.episodes import Collector

ENV = Adroit(Adroit.Config(task="door"))
STEPS = 3
TYPES = ("f2", "f4", "f8", "f16", ">f4", "c8", "i1", "i4", "u8", "?", "S3", "U3", "M8[s]", "O", "V4")
SHAPES = ("()", "(-1,)", "(True,)", "'x'", "(0, 10**30)", "(250000000,)", "(4, 10**9)", "(10**18,)", f"({'1, ' * 70})")
METHODS = {"stored": 0, "deflate": 8, "bzip2": 12, "lzma": 14}
BOMB = 40 * 2**20


@pytest.fixture(scope="module")
def base():
    """(arrays, facts) of a set of two short episodes."""
    made = sets.load(sets.shipped()["adroit_door_paper"]).pick([0, 1])
    first = made.lengths[0]
    rows, states = np.r_[:STEPS, first : first + STEPS], np.r_[: STEPS + 1, first + 1 : first + 2 + STEPS]
    made = replace(
        made,
        lengths=np.array([STEPS, STEPS]),
        actions=made.actions[rows],
        qpos=made.qpos[states],
        qvel=made.qvel[states],
        flags={name: values[rows] for name, values in made.flags.items()},
        facts={**made.facts, **sets.facts_of(ENV), "returns": [1.0, 2.0], "format": sets.FORMAT},
    )
    return made.arrays(), dict(made.facts)


@pytest.fixture(scope="module")
def envs():
    made = WorkerVectorEnv(ENV, 2, None, 0)
    yield made
    made.close()


def packed(arrays, method=8, forged=None):
    """An .npz of these arrays; `forged`: bytes of a member in an array's place."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            plain = io.BytesIO()
            np.save(plain, array, allow_pickle=True)
            content = (forged or {}).get(name, plain.getvalue())
            archive.writestr(f"{name}.npy", content, method)
    return file.getvalue()


def headed(shape, kind, body):
    """An .npy that announces a shape and a type, with other bytes behind it."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def other_array(rng, arrays):
    name = rng.choice(list(arrays))
    x, kind = arrays[name], rng.randrange(7)
    if kind == 0:
        return f"{name} gone", {k: v for k, v in arrays.items() if k != name}
    if kind == 1:
        other = rng.choice(("flag.x", "initial.x", "initial.", "flag.", "x", "actions"))
        return f"{name} as {other}", {other if k == name else k: v for k, v in arrays.items()}
    if kind == 2:
        to = rng.choice(TYPES)
        return f"{name} as {to}", arrays | {name: x.astype(to)}
    if kind == 3:
        number = rng.choice((np.nan, np.inf, -1, 0))
        return f"{name} {number}", arrays | {name: np.where(np.arange(x.size).reshape(x.shape) % 5, x, number)}
    if kind == 4:
        shaped = rng.choice((x[:-1], x[:0], x[None], x[..., None], x.reshape(-1), x.sum(), np.concatenate([x, x])))
        return f"{name} of {np.shape(shaped)}", arrays | {name: np.asarray(shaped, x.dtype)}
    if kind == 5:
        wide = rng.choice((x[..., :1], x[..., :0], np.repeat(x, 2, -1), np.asfortranarray(x)))
        return f"{name} of {wide.shape}", arrays | {name: wide}
    lengths = rng.choice(([-3, 9], [0, 6], [2**62, 2**62 + 6], [5, 1], [2**31, 6 - 2**31], [6], []))
    return f"lengths {lengths}", arrays | {"lengths": np.array(lengths, np.int64)}


def mutant(rng, base, path):
    """Writes a damaged or forged set; returns what was done."""
    arrays, facts = base
    method = "deflate"
    data, text = None, None
    kind = rng.choice(("bytes", "facts", "facts", "arrays", "arrays", "header", "archive"))
    if kind == "facts":
        what, text = mutants.json_text(rng, facts | {"checksum": "0" * 16})
    elif kind == "arrays":
        what, arrays = other_array(rng, arrays)
    elif kind == "header":
        name, shape, to = rng.choice(list(arrays)), rng.choice(SHAPES), rng.choice(TYPES)
        what = f"{name} announces {to} {shape}"
        data = packed(arrays, forged={name: headed(shape, np.dtype(to).str, bytes(rng.choice((0, 24, 4000))))})
    elif kind == "archive":
        method = what = rng.choice(list(METHODS))
    data = packed(arrays, METHODS[method]) if data is None else data
    if kind == "bytes":
        what, data = mutants.damaged(rng, data)
    elif kind == "archive" and rng.random() < 0.8:
        at = data.find(b"PK\x01\x02")
        place, byte = rng.choice(((8, 1), (10, 1), (10, 99), (24, 5), (26, 200), (28, 255), (42, 9)))
        what, data = f"{what}, {byte} at {place}", data[: at + place] + bytes([byte]) + data[at + place + 1 :]
    if text is None:
        text = json.dumps(signed(arrays, facts))
    path.write_bytes(data)
    path.with_suffix(".json").write_text(text, errors="replace")
    return what


def signed(arrays, facts):
    """The facts with the checksums that a forger writes too."""
    try:
        made = Demos(
            **{name: arrays[name] for name in ("lengths", "actions", "qpos", "qvel")},
            flags={k[5:]: v for k, v in arrays.items() if k.startswith("flag.")},
            initial={k[8:]: v for k, v in arrays.items() if k.startswith("initial.")},
            facts=facts,
        )
        return facts | {"checksum": made.checksum(), "contents": made.contents()}
    except KeyError:
        return facts


def used(path, envs):
    """Everything that asks a set: `rrl demos info`, a run's demonstrations, a replay by actions and one by states."""
    commands.info(str(path), str)
    demos = DemoSet(DemoSet.Config(source=str(path)), env=ENV)
    demos.facts()
    demos.replay(Collector(envs), NoPolicy(envs.action_dim))
    playback(Collector(envs), NoPolicy(envs.action_dim), demos.demos)
    demos.demos.repeated(2)
    sets.environment(demos.demos.facts)


def test_the_undamaged_set_is_read(base, envs, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed(base[0]))
    path.with_suffix(".json").write_text(json.dumps(signed(*base)))
    used(path, envs)


def test_mutants(base, envs, tmp_path):
    path = tmp_path / "a.npz"
    assert not mutants.faults(300, lambda rng: mutant(rng, base, path), lambda: used(path, envs))


@pytest.mark.parametrize("name", ["lengths", "actions", "more", "initial.more"])
def test_what_unpacks_to_much_is_not_unpacked(base, tmp_path, name):
    arrays, facts = base
    rows = {"actions": 2 * STEPS, "initial.more": 2}.get(name, 1)
    columns = BOMB // 8 // rows
    shape = f"({columns},)" if name == "lengths" else f"({rows}, {columns})"
    bomb = headed(shape, "<i8" if name == "lengths" else "<f8", bytes(8 * rows * columns))
    path = tmp_path / "a.npz"
    path.write_bytes(packed({name: np.zeros(1), **arrays}, forged={name: bomb}))
    path.with_suffix(".json").write_text(json.dumps(signed(arrays, facts)))
    assert path.stat().st_size < 2**17
    assert not mutants.trial(lambda: sets.load(path), memory=BOMB // 2)
