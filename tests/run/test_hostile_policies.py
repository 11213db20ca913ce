"""Policy files that no run wrote: each is refused in plain words before anything large is built."""

import pytest
import torch

from rrl.registry import UserError
from rrl.run import policies
from rrl.store import checkpoint

TENSORS, VALUES = checkpoint.load_file(policies.find("adroit_pen_rlpd_state"))
CONFIG = VALUES["config"]
WEIGHT = "actor.mlp.0.weight"
VALUE_MISTAKES = [
    *(("state_dim", value) for value in ("x", -1, 0, 44, 46, 10**9, 10**30, 1.5, None, [3], True)),
    *(("action_dim", value) for value in ("x", -1, 0, 23, 10**9, 1.5, None)),
    *(("config", value) for value in (3, None, ["a"], "", CONFIG[:100], "x" * 100)),
    ("config", f"include 'env/adroit_pen.gin'\n{CONFIG}"),
    ("config", f"import os\n{CONFIG}"),
    ("config", CONFIG.replace("Experiment.seed", "Experiment.sead")),
    ("iteration", "many"),
    ("made_with", ["torch"]),
    ("weights", 3),
]
TENSOR_MISTAKES = {
    "missing": lambda t: {name: tensor for name, tensor in t.items() if name != WEIGHT},
    "one more": lambda t: t | {"more": torch.zeros(3)},
    "flat": lambda t: t | {WEIGHT: t[WEIGHT].reshape(-1)},
    "twice": lambda t: t | {WEIGHT: torch.cat([t[WEIGHT], t[WEIGHT]])},
    "whole numbers": lambda t: t | {WEIGHT: t[WEIGHT].to(torch.int8)},
    "infinite": lambda t: t | {WEIGHT: torch.full_like(t[WEIGHT], -torch.inf)},
    "none": lambda t: {},
}


@pytest.mark.parametrize(("name", "value"), VALUE_MISTAKES, ids=lambda value: repr(value)[:30])
def test_facts_that_no_run_wrote(tmp_path, name, value):
    checkpoint.save_file(tmp_path / "a.safetensors", TENSORS, VALUES | {name: value})
    with pytest.raises(UserError, match=r"a\.safetensors"):
        policies.load_policy(tmp_path / "a.safetensors")


@pytest.mark.parametrize("change", TENSOR_MISTAKES.values(), ids=TENSOR_MISTAKES)
def test_weights_that_are_not_the_configurations(tmp_path, change):
    checkpoint.save_file(tmp_path / "a.safetensors", TENSORS, VALUES)
    policies.load_policy(tmp_path / "a.safetensors")
    checkpoint.save_file(tmp_path / "b.safetensors", change(TENSORS), VALUES)
    with pytest.raises(UserError, match=r"b\.safetensors"):
        policies.load_policy(tmp_path / "b.safetensors")
