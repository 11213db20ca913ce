"""Other people's demonstrations that were damaged or forged: DAPG pickles, arrays in an .npz, HDF5."""

import io
import pickle
import pickletools

import numpy as np
import pytest
from helpers import mutants

from rrl.demos import importers

h5py = pytest.importorskip("h5py")

STEPS = 12
PROTOCOLS = (0, 2, 4)
NUMBERS = (0, -1, 2**31, 2**40, 2**63, 10**400, 0.5, np.nan, "x", None, b"\0", [], {}, (), True)
OTHERS = (print, int, np.float32, np.dtype("O"), np.array([None]), np.array(["x"]), np.float64(1), 1j, {1}, range(3))


@pytest.fixture(scope="module")
def episodes():
    rng = np.random.default_rng(0)
    made = []
    for _ in range(2):
        start = {"qpos": rng.normal(size=5), "qvel": rng.normal(size=5), "door_body_pos": rng.normal(size=3)}
        seen = {"actions": rng.uniform(-1, 1, (STEPS, 3)), "observations": rng.normal(size=(STEPS, 4))}
        made.append({**seen, "rewards": np.zeros(STEPS), "init_state_dict": start})
    return made


def changed(rng, episodes):
    """(what was done, episodes) after a value of one of them was replaced."""
    rest = [{**episode, "init_state_dict": dict(episode["init_state_dict"])} for episode in episodes]
    into = rng.choice(rest)
    into = rng.choice((into, into["init_state_dict"]))
    key = rng.choice(list(into))
    x = into[key]
    others = [*NUMBERS, *OTHERS]
    if isinstance(x, np.ndarray):
        others += [x[:-1], x[None], x.ravel(), x.astype(np.float16), x.astype(">f8"), x * np.nan, x * 1e300, x.tolist()]
    new = into[key] = rng.choice(others)
    return f"{key} = {new!r:.60}", rest


def other_opcodes(rng, data):
    """The program with one to four instructions lost, repeated or in another place."""
    starts = [place for _, _, place in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    told = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, to = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.choice(("lost", "twice", "moved", "many"))
        told.append(f"opcode {at} ({parts[at][:1]!r}) {kind}")
        if kind == "lost" and len(parts) > 1:
            del parts[at]
        elif kind == "moved":
            parts.insert(to, parts.pop(at))
        else:
            parts[at:at] = [parts[at]] * (1 if kind == "twice" else 2000)
    return ", ".join(told), b"".join(parts)


def as_pickle(rng, episodes):
    kind = rng.choice(("bytes", "opcodes", "opcodes", "values"))
    what = ""
    if kind == "values":
        what, episodes = changed(rng, episodes)
    data = pickle.dumps(episodes, rng.choice(PROTOCOLS))
    if kind != "values":
        what, data = (mutants.damaged if kind == "bytes" else other_opcodes)(rng, data)
    return what, data


def as_npz(rng, episodes):
    arrays = {"actions": np.stack([e["actions"] for e in episodes]), "length": np.array([STEPS, STEPS - 2])}
    arrays |= {f"init_{k}": np.stack([e["init_state_dict"][k] for e in episodes]) for k in ("qpos", "qvel")}
    kind, what = rng.choice(("bytes", "values")), ""
    if kind == "values":
        name = rng.choice(list(arrays))
        x = arrays[name]
        others = [x[:-1], x[:0], x[None], x.ravel(), -x, x * 10**9, x * np.nan, x.astype(complex), x.astype(object)]
        arrays[name] = rng.choice([*others, x.astype("S3"), x.astype(np.longdouble), x.astype(">f4"), np.array(3)])
        what = f"{name} = {arrays[name].dtype} {arrays[name].shape}"
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)
    data = written.getvalue()
    return mutants.damaged(rng, data) if kind == "bytes" else (what, data)


def as_hdf5(rng, episodes):
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        for i, episode in enumerate(episodes):
            group = file.create_group(f"data/demo_{i}")
            start = episode["init_state_dict"]
            group["actions"], group["states"] = episode["actions"], np.zeros((STEPS, 10))
            group.attrs["init_door_body_pos"] = start["door_body_pos"]
    return mutants.damaged(rng, written.getvalue())


@pytest.mark.parametrize(("ending", "written"), [(".pickle", as_pickle), (".npz", as_npz), (".hdf5", as_hdf5)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:invalid escape:DeprecationWarning")
def test_mutants(episodes, tmp_path, ending, written):
    path = tmp_path / f"a{ending}"

    def make(rng):
        what, data = written(rng, episodes)
        path.write_bytes(data)
        return what

    def read():
        for episode in importers.read(str(path)):
            assert episode.actions.ndim == 2
            assert np.isfinite(episode.actions).all()
        importers.environment(str(path))

    assert not mutants.faults(300, make, read)
