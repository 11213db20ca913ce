"""Demonstrations in pickles: what is read of them, and that nothing in a hostile one runs."""

import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict, defaultdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rrl import cli
from rrl.demos import importers
from rrl.registry import UserError


class Evil:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "system": lambda mark: Evil(os.system, f"touch {mark}"),
    "exec": lambda mark: Evil(exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Evil(open, str(mark), "w"),
    "numpy": lambda mark: Evil(np.save, str(mark), np.zeros(1)),
    "inside": lambda mark: [{"actions": Evil(os.mkdir, str(mark)), "init_state_dict": {}}],
    "object array": lambda mark: np.array([Evil(os.mkdir, str(mark))], dtype=object),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path, kind, protocol):
    mark, path = tmp_path / "mark", tmp_path / "door.pickle"
    path.write_bytes(pickle.dumps(HOSTILE[kind](mark), protocol))
    why = r"is refused: (it asks for .* which no demonstration needs|an array holds something else)"
    with pytest.raises(UserError, match=why):
        importers.read(str(path))
    assert not list(tmp_path.glob("mark*"))
    # The control: this test's own file does run when unpickled, so the refusal is what stopped it.
    pickle.loads(path.read_bytes())
    assert list(tmp_path.glob("mark*"))


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def data(raw):
    return b"B" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"J" + struct.pack("<i", value)


NDARRAY, DTYPE, FROMBUFFER = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.numeric\n_frombuffer\n"
FORGED = (  # a dtype of 8 bytes that claims to hold objects, and an array of it: foreign memory as objects
    DTYPE + b"(" + text("V8") + b"\x89\x88tR(" + number(3) + text("|") + b"N" + text("a") + b"\x85}"
    + text("a") + DTYPE + text("O") + b"\x85R" + number(0) + b"\x86s" + number(8) + number(1) + number(16)
    + b"tbq\x050" + FROMBUFFER + b"(" + data(b"A" * 64) + b"h\x05" + number(8) + b"\x85" + text("C") + b"tR."
)  # fmt: skip
FREED = (  # an array on another one's memory, which then gives it back
    NDARRAY + b"(" + number(4_000_000) + b"\x85" + text("f8") + b"tRq\x01"
    + NDARRAY + b"(" + number(4_000_000) + b"\x85" + text("f8") + b"h\x01tRq\x02"
    + b"h\x01(" + number(1) + number(1) + b"\x85" + DTYPE + text("f8") + b"\x85R\x89"
    + data(b"8 bytes!") + b"tb."
)  # fmt: skip
CRASHING = {
    "forged dtype": b"\x80\x04" + FORGED,
    "freed memory": b"\x80\x04" + FREED,
    "deep tuple as a key": b"\x80\x04]}N" + b"\x85" * 3_000_000 + b"Nsa.",
    "deep tuple as axes": b"\x80\x04" + FROMBUFFER + b"(C\x00" + DTYPE + text("f8") + b"\x85RK\x00\x85"
    + text("K") + b"N" + b"\x85" * 3_000_000 + b"tR.",
    "tuples of twice the one before": b"\x80\x04]}N" + b"q\x00h\x00\x86" * 60 + b"Nsa.",
    "lists of twice the one before": b"\x80\x04]q\x00" + b"]q\x00(h\x00h\x00e" * 60 + b".",
    "one array again and again": b"\x80\x04](" + FROMBUFFER + b"(" + data(b"8 bytes!" * 1000) + DTYPE
    + text("f8") + b"\x85R" + number(1000) + b"\x85" + text("C") + b"tRq\x00" + b"h\x00" * 500_000 + b"e.",
    "keys of one hash": b"\x80\x04]}(" + b"".join(
        b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(100_000)) + b"ua.",
    "memo of half a gigabyte": b"\x80\x04]r" + struct.pack("<I", 2**25) + b".",
    "shape that does not fit": b"\x80\x04" + FROMBUFFER + b"(" + data(b"8 bytes!") + DTYPE + text("f8")
    + b"\x85R" + number(2**30) + b"\x85" + text("C") + b"tR.",
}  # fmt: skip


@pytest.mark.parametrize("kind", CRASHING)
def test_a_pickle_cannot_crash_the_interpreter(tmp_path, kind):
    """In a process of its own, with little memory: a crash must not take the tests along."""
    (tmp_path / "door.pickle").write_bytes(CRASHING[kind])
    code = (
        "import resource\nfrom rrl.demos import importers\nfrom rrl.registry import UserError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28,) * 2)\n"
        "try:\n    importers.read('door.pickle')\n"
        "except UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "is refused: " in done.stdout or "holds no episodes" in done.stdout
    assert "MemoryError" not in done.stdout


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy.core.multiarray\nscalar\n}S'__name__'\nS'x'\nsb.",  # attributes of what is allowed
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",  # a dotted name
        b"Pabc\n.",  # a persistent id
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",  # another codec
        b"cnumpy\nndarray\n(lp0\n.",  # cut short
        b"",
        b"not a pickle",
    ],
)
def test_odd_pickles_are_refused(tmp_path, program):
    path = tmp_path / "door.pickle"
    path.write_bytes(program)
    with pytest.raises(UserError, match=r"refused|not a list"):
        importers.read(str(path))


def test_commands_refuse_a_hostile_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("door.pickle").write_bytes(pickle.dumps(Evil(os.mkdir, "mark")))
    result = CliRunner().invoke(cli.app, ["demos", "import", "door.pickle", "out.npz"])
    assert result.exit_code == 2, result.output
    assert "door.pickle is refused: it asks for posix.mkdir, which no demonstration needs" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["door.pickle"]


def test_arrays_in_other_orders_and_sizes(tmp_path, episodes):
    """Fortran order, transposed, float32, empty, big-endian, numbers: as numpy pickles them."""
    actions = episodes[0]["actions"].astype(np.float64)
    for protocol in (0, 2, 4, 5):
        for values in (
            np.asfortranarray(actions),
            np.ascontiguousarray(actions.T).T,
            actions[:, ::-1],
            actions.astype(">f8"),
            actions.astype(np.float32).astype(np.float16),
        ):
            start = {"qpos": values, "qvel": np.zeros(0), "steps": np.float32(3.5), "name": "x", "n": None}
            path = tmp_path / "door.pickle"
            path.write_bytes(pickle.dumps([{"actions": values, "init_state_dict": start}], protocol))
            (got,) = importers.read(str(path))
            assert np.array_equal(got.actions, values)
            assert np.array_equal(got.initial["qpos"], values)
            assert got.initial["steps"] == 3.5


def paths_of(episodes):
    """DAPG's list of episodes."""
    return [
        {"actions": e["actions"].astype(np.float64), "init_state_dict": dict(e["initial"]), "rewards": np.zeros(3)}
        for e in episodes
    ]


class Unknown:
    """An object of a class that no importer knows."""

    def __init__(self):
        self.values = [1, 2]


def shared(paths):
    first, rewards = paths[0], np.zeros(3)
    return [{**p, "init_state_dict": first["init_state_dict"], "rewards": rewards, "tags": (rewards,)} for p in paths]


ODD = {
    "under a key": lambda p: {"paths": p},
    "under a key with others": lambda p: {"meta": {"a": 1}, "n": 3, "list": [1, 2], "paths": p, "more": None},
    "by name": lambda p: {f"Trial{i}": path for i, path in enumerate(p)},
    "by number": lambda p: dict(enumerate(p)),
    "named root": lambda p: {"Rollouts": {f"Trial{i}": path for i, path in enumerate(p)}},
    "tuple": tuple,
    "tuple with more": lambda p: (p, {"about": "door"}),
    "ordered": lambda p: [OrderedDict(path) for path in p],
    "ordered start": lambda p: [{**path, "init_state_dict": OrderedDict(path["init_state_dict"])} for path in p],
    "default": lambda p: defaultdict(list, paths=p),
    "shared": lambda p: shared([p[0], p[0]]),
    "the same twice": lambda p: [p[0], p[0]],
    "lists of numbers": lambda p: [{**path, "actions": path["actions"].tolist()} for path in p],
    "lists of arrays": lambda p: [{**path, "actions": list(path["actions"])} for path in p],
    "tuples of numbers": lambda p: [{**path, "actions": tuple(map(tuple, path["actions"].tolist()))} for path in p],
    "unused objects": lambda p: [
        {**path, "agent": Unknown(), "when": Decimal("1.5"), "set": {1, 2}, "frozen": frozenset("ab"),
         "path": Path("x"), "random": np.random.default_rng(0), "objects": np.array([Unknown(), None], dtype=object),
         (1, 2): 3, "text": np.array(["a", "b"]), "c": np.complex128(1j), "class": Unknown, "masked": np.ma.zeros(3)}
        for path in p
    ],
    "objects in the start": lambda p: [
        {**path, "init_state_dict": {**path["init_state_dict"], "model": Unknown(), "s": {1}}} for path in p
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_other_kinds_are_read(tmp_path, episodes, kind, protocol):
    path = tmp_path / "door.pickle"
    made = ODD[kind](paths_of(episodes))
    path.write_bytes(pickle.dumps(made, protocol))
    found = importers.read(str(path))
    twice = kind in ("shared", "the same twice")
    for got, wanted in zip(found, [episodes[0]] * 2 if twice else episodes, strict=True):
        assert np.array_equal(got.actions, wanted["actions"].astype(np.float64))
        for name, values in wanted["initial"].items():
            assert np.array_equal(got.initial[name], values)


def test_an_unused_object_in_a_pickle_never_runs(tmp_path, episodes):
    mark, path = tmp_path / "mark", tmp_path / "door.pickle"
    for protocol in (0, 2, 4, 5):
        for evil in (Evil(os.mkdir, str(mark)), Evil(exec, f"open({str(mark)!r}, 'w')"), Evil(open, str(mark), "w")):
            made = [{**e, "unused": evil, "more": {"deep": [evil]}} for e in paths_of(episodes)]
            path.write_bytes(pickle.dumps({"about": evil, "paths": made}, protocol))
            assert len(importers.read(str(path))) == len(episodes)
            assert not mark.exists()


def test_what_a_pickle_lacks_is_said(tmp_path, episodes):
    path, paths = tmp_path / "door.pickle", paths_of(episodes)

    def refused(made):
        path.write_bytes(pickle.dumps(made))
        with pytest.raises(UserError) as caught:
            importers.read(str(path))
        return str(caught.value)

    assert "episodes in ['train'] and ['test']" in refused({"train": paths, "test": paths[:1]})
    assert "of the 3 things in its list only 2 are episodes" in refused([*paths, {"observations": 1}])
    assert "is not a list of episodes" in refused({"weights": np.zeros(3)})
    assert "it has weights" in refused({"weights": np.zeros(3)})
    assert "it asks for decimal.Decimal, which no" in refused([{**paths[0], "actions": [[Decimal(1)]]}])
    assert "needs actions and init_state_dict; it has actions" in refused([{"actions": np.zeros((3, 2))}])
    endless = []
    endless.append(endless)
    assert "is refused" in refused(endless)
    assert "is refused" in refused([{**paths[0], "actions": endless}])
