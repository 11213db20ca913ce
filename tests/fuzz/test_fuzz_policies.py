"""Policy files that were damaged or forged: each is loaded, and acts, or refused in words."""

import json

import numpy as np
import pytest
from helpers import mutants, small_policies

from rrl.run import policies
from rrl.store import checkpoint

STATE, ACTION = 39, 28
GIN = """
include 'env/adroit_door.gin'
include 'method/npg.gin'
Experiment.encoder = @State()
Experiment.evaluators = (@SuccessRate(),)
Adroit.state = 'task'
NPG.policy_hidden = (8,)
NPG.value_hidden = (8,)
"""
SETTINGS = (
    *("0", "-1", "2", "10**9", "2147483647", "1e9", "9" * 5000, "None", "True", "'x'", "'cuda'", "()", "[1]", "{}"),
    *("(16384,) * 3", "(16384, 16384, 16384)", "@SAC()", "@DAPG()", "@ResNet()", "@Adroit()", "%macro", "(" * 200),
)
LENGTHS = (0, 1, 2**31, 2**40, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(bytes, tensors, values) of a small policy's file."""
    path = tmp_path_factory.mktemp("policies") / "a.safetensors"
    small_policies.saved(path, GIN, STATE, ACTION)
    return path.read_bytes(), *checkpoint.load_file(path)


def mutant(rng, base, path):
    """Writes a damaged or forged policy; returns what was done."""
    data, tensors, values = base
    kind = rng.choice(("bytes", "length", "header", "values", "values", "configuration", "tensors"))
    text = json.dumps(values)
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    if kind == "bytes":
        what, data = mutants.damaged(rng, data)
    elif kind == "length":
        size = rng.choice((*LENGTHS, size - 1, size + 1, len(data) - 8))
        what, data = str(size), size.to_bytes(8, "little") + header + body
    elif kind == "header":
        what, other = mutants.json_text(rng, json.loads(header))
        header = other.encode(errors="replace")
        data = len(header).to_bytes(8, "little") + header + body
    elif kind == "tensors":
        what, tensors = mutants.other_tensor(rng, tensors)
        data = mutants.signed(tensors, text)
    else:
        if kind == "values":
            what, text = mutants.json_text(rng, values)
        else:
            lines = values["config"].splitlines()
            place = rng.choice([place for place, line in enumerate(lines) if "=" in line])
            what = lines[place] = f"{lines[place].partition(' = ')[0]} = {rng.choice(SETTINGS)}"
            text = json.dumps(values | {"config": "\n".join(lines)})
        data = mutants.signed(tensors, text.encode(errors="replace").decode())
    path.write_bytes(data)
    return f"{kind}: {what:.200}"


def acting(path):
    policy = policies.load_policy(path)
    action = policy.act({"state": np.zeros(policy.facts["state_dim"], np.float32)})
    assert action.shape == (policy.facts["action_dim"],)
    assert np.isfinite(action).all()


def test_the_undamaged_policy_acts(base, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(base[0])
    acting(tmp_path / "a.safetensors")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants(base, tmp_path):
    path = tmp_path / "a.safetensors"
    assert not mutants.faults(300, lambda rng: mutant(rng, base, path), lambda: acting(path))
