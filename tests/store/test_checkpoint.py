"""Checkpoints that were changed since they were written."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from rrl.registry import UserError
from rrl.run import saving
from rrl.store import checkpoint

TENSORS = {
    "weight": torch.arange(600, dtype=torch.float32).reshape(30, 20),
    "half": torch.ones(7, dtype=torch.bfloat16),
    "none": torch.zeros(0),
    "one": torch.tensor(3),
    "yes": torch.tensor([True, False]),
}
VALUES = {
    "iteration": 3,
    "steps": 300,
    "evaluated": 200,
    "rows": 4,
    "seconds": 12.5,
    "best": None,
    "cost": {},
    "finished": False,
    "identity": {"demos": "abc"},
    "agent": {},
}


def test_no_flipped_bit_is_loaded(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save_file(path, TENSORS, VALUES)
    tensors, values = checkpoint.load_file(path)
    assert values == VALUES
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(len(whole), size=200), rng.integers(8, size=200), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.safetensors"):
            checkpoint.load_file(path)


def test_files_of_earlier_versions_have_no_checksum(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, {"format": "rrl", "values": json.dumps(VALUES)}))
    assert checkpoint.load_file(path)[1] == VALUES


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": "3"},
        {"iteration": -1},
        {"steps": 1.5},
        {"steps": 2**60},
        {"rows": [4]},
        {"seconds": float("inf")},
        {"seconds": -1.0},
        {"best": "much"},
        {"identity": {"demos": 3}},
        {"identity": []},
        {"finished": "yes"},
        {"agent": None},
        {"replay": "a"},
    ],
    ids=str,
)
def test_values_that_no_run_wrote_are_refused(tmp_path, change):
    checkpoint.save_file(tmp_path / saving.CHECKPOINT, TENSORS, VALUES)
    assert saving.last(tmp_path, {"demos": "abc"}).values == VALUES
    checkpoint.save_file(tmp_path / saving.CHECKPOINT, TENSORS, VALUES | change)
    with pytest.raises(UserError, match=rf"is no checkpoint that rrl wrote: {next(iter(change))}"):
        saving.last(tmp_path, {"demos": "abc"})
