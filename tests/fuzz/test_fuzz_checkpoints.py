"""Checkpoints and replay memories of a run that were damaged or forged: `rrl resume` goes on from them, or says why
not."""

import io
import json
from contextlib import suppress

import numpy as np
import pytest
from dm_control.rl.control import PhysicsError
from helpers import mutants, sac_agents

from rrl.envs.dmcontrol import DMControl
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.steps import Stepper
from rrl.run import saving
from rrl.store import checkpoint
from rrl.store.tracking import Log

ROWS = 3
STEPS = 30
IDENTITY = {"weights": "none"}
COUNTERS = {"iteration": 3, "steps": 60, "evaluated": 0, "rows": ROWS, "seconds": 1.5, "best": None}
NUMBERS = (-1, 0, 1, STEPS, 10**6, 2**31, 2**53, 2**62, 2**63 - 1)


@pytest.fixture(scope="module")
def envs():
    env = DMControl(DMControl.Config(domain="cartpole", task="swingup", horizon=20))
    made = WorkerVectorEnv(env, 2, None, 0)
    yield made
    made.close()


def fresh(envs):
    agent = sac_agents.make(state_dim=5, action_dim=1, slots=2, replay=80)
    return agent, Stepper(envs, agent.stack, 0)


@pytest.fixture(scope="module")
def run(envs, tmp_path_factory):
    """The files of a run's folder that ended in the middle of its episodes."""
    folder = tmp_path_factory.mktemp("run")
    agent, stepper = fresh(envs)
    log = Log(folder / "metrics.jsonl", 0)
    for i in range(STEPS):
        agent.update(stepper.collect(agent, 1))
        if i % 10 == 9:
            log.append(i, {"train/return": 1.5})
            saving.save(folder, agent, stepper, COUNTERS | {"identity": IDENTITY})
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def segment_mutant(rng, data):
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = rng.choice(list(arrays))
    x, number = arrays[name], rng.choice((-1, 0, 1, 2, 200, np.nan, 2**20))
    others = {
        "gone": None,
        "short": x[:-1],
        "long": np.concatenate([x, x]),
        "flat": x.ravel(),
        "float": x.astype(np.float64),
        "objects": x.astype(object),
        f"with {number}": np.where(np.arange(x.size).reshape(x.shape) % 5, x, number).astype(x.dtype),
    }
    what = rng.choice(list(others))
    rest = {other: array for other, array in arrays.items() if other != name}
    written = io.BytesIO()
    np.savez(written, **(rest if others[what] is None else rest | {name: others[what]}))
    return f"{name} {what}", written.getvalue()


def manifest_mutant(rng, values):
    """A memory that names other files or places."""
    replay = json.loads(json.dumps(values["replay"]))
    part = rng.choice((*replay["segments"], None))
    number = rng.choice(NUMBERS)
    if part is None:
        place = rng.randrange(len(replay["head"]))
        what, replay["head"][place] = f"head {place} = {number}", number
    else:
        key = rng.choice(("slot", "first", "count"))
        what, part[key] = f"{key} of {part['name']} = {number}", number
        if min(part["slot"], part["first"], part["count"]) >= 0:
            part["name"] = f"{part['slot']}-{part['first']:012d}-{part['first'] + part['count'] - 1:012d}.npz"
    return what, values | {"replay": replay}


def mutant(rng, run, folder):
    """Writes a damaged or forged run; returns what was done."""
    for path in (folder / "replay").glob("*"):
        path.unlink()
    for name, data in run.items():
        (folder / name).write_bytes(data)
    path = folder / saving.CHECKPOINT
    tensors, values = checkpoint.load_file(path)
    kind = rng.choice(("bytes", "values", "values", "manifest", "tensors", "tensors", "segment", "no segment", "rows"))
    if kind == "bytes":
        name = rng.choice(list(run))
        what, data = mutants.damaged(rng, run[name])
        (folder / name).write_bytes(data)
    elif kind == "values":
        name = rng.choice((None, "stepper", "replay", "agent"))
        what, text = mutants.json_text(rng, values if name is None else values[name])
        if name is not None:
            text = json.dumps(values | {name: "HERE"}).replace('"HERE"', text)
        path.write_bytes(mutants.signed(tensors, text.encode(errors="replace").decode()))
        name = f"{name or 'checkpoint'}'s values"
    elif kind == "tensors":
        what, tensors = mutants.other_tensor(rng, tensors)
        name = "checkpoint"
        path.write_bytes(mutants.signed(tensors, json.dumps(values)))
    elif kind == "manifest":
        name = "manifest"
        what, values = manifest_mutant(rng, values)
        path.write_bytes(mutants.signed(tensors, json.dumps(values)))
    elif kind == "rows":
        name = "metrics.jsonl"
        lines = run[name].decode().splitlines()
        line = rng.randrange(len(lines))
        what, lines[line] = mutants.json_text(rng, json.loads(lines[line]))
        (folder / name).write_text("\n".join([*lines, ""]), errors="replace")
    else:
        name = rng.choice([name for name in run if name.startswith("replay/")])
        what, data = segment_mutant(rng, run[name])
        (folder / name).write_bytes(data)
        if kind == "no segment":
            what = "gone"
            (folder / name).unlink()
    return f"{name}: {what}"


def resumed(folder, envs):
    """What `rrl resume` reads, and an update of what it goes on with."""
    last = saving.last(folder, IDENTITY)
    agent, stepper = fresh(envs)
    saving.restore(folder, agent, stepper, None, last)
    Log(folder / "metrics.jsonl", last.values["rows"])
    with suppress(PhysicsError):  # of a state that no simulator can go on from
        agent.update(stepper.collect(agent, 1))


def test_the_undamaged_run_goes_on(run, envs, tmp_path):
    (tmp_path / "replay").mkdir()
    for name, data in run.items():
        (tmp_path / name).write_bytes(data)
    resumed(tmp_path, envs)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_mutants(run, envs, tmp_path):
    (tmp_path / "replay").mkdir()
    assert not mutants.faults(300, lambda rng: mutant(rng, run, tmp_path), lambda: resumed(tmp_path, envs))
