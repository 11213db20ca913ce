"""Slots: stacked pictures and rows, what idle slots keep, and that nobody else puts observations together."""

import ast
from pathlib import Path

import numpy as np
import pytest

import rrl
from rrl.envs.base import FrameRequest
from rrl.registry import UserError
from rrl.rollout.slots import Slots

FRAMES = FrameRequest(size=2, crop_from=2, stack=3)
NONE, ALL = np.zeros(2, bool), np.ones(2, bool)
FIRST = np.array([True, False])


class Summing:
    """Observes a picture's channels and the state; acts with everything that it is shown."""

    stack = 2

    def observe(self, obs):
        return np.concatenate([obs.frames[:, 0, 0].astype(np.float32), obs.state], axis=1)

    def act(self, observed, noise):
        return observed if noise is None else observed + noise[:, :1]


def observation(number):
    """Slot i shows colour 10 * i + number, the state says the same."""
    values = 10 * np.arange(2) + number
    frames = np.broadcast_to(values[:, None, None, None], (2, 2, 2, 1)).astype(np.uint8)
    return {"frames": frames.copy(), "state": values[:, None].astype(np.float32)}


def rows(*numbers):
    """What `Summing` is shown in slot 0 after these stacks of pictures, and of slot 1, which is 10 further."""
    row = np.array([*numbers], np.float32)
    return np.stack([row, row + 10])


def test_pictures_and_rows_are_stacked_oldest_first():
    slots, policy = Slots(2, FRAMES, policy_stack := Summing.stack), Summing()
    assert policy_stack == 2 and slots.remembers
    assert np.array_equal(slots.look(policy, observation(1), ALL, NONE), rows(1, 1, 1, 1))
    assert np.array_equal(slots.act(policy, None), rows(1, 1, 1, 1, 1, 1, 1, 1))
    slots.look(policy, observation(2), NONE, ALL)
    assert np.array_equal(slots.observed, rows(1, 1, 2, 2))
    assert np.array_equal(slots.act(policy, None), rows(1, 1, 1, 1, 1, 1, 2, 2))
    slots.look(policy, observation(3), NONE, ALL)
    assert np.array_equal(slots.act(policy, np.ones((2, 8), np.float32)), 1 + rows(1, 1, 2, 2, 1, 2, 3, 3))


def test_an_episode_begins_with_its_own_picture_and_idle_slots_keep_theirs():
    slots, policy = Slots(2, FRAMES, 1), Summing()
    slots.look(policy, observation(1), ALL, NONE)
    slots.look(policy, observation(2), NONE, ALL)
    slots.look(policy, observation(3), FIRST, NONE)  # slot 0 begins an episode, slot 1 did nothing
    assert slots.observed.tolist() == [[3, 3, 3, 3], [11, 11, 12, 13]]
    slots.look(policy, observation(4), NONE, FIRST)
    assert slots.observed.tolist() == [[3, 3, 4, 4], [11, 11, 12, 14]]


@pytest.mark.parametrize("frames", [FRAMES, FrameRequest(2, 2), None])
def test_a_snapshot_goes_on_bit_for_bit_under_the_names_of_old_checkpoints(frames):
    class Blind(Summing):
        def observe(self, obs):
            return obs.state

    policy = Blind() if frames is None else Summing()

    def seen(number):
        return {k: v for k, v in observation(number).items() if k == "state" or frames is not None}

    slots, other = Slots(2, frames, 2), Slots(2, frames, 2)
    slots.look(policy, seen(1), ALL, NONE)
    arrays = {name: values.copy() for name, values in slots.snapshot().items()}
    stacks = {"stack.frames", "stack.kept"} if frames is FRAMES else {"stack.kept"}
    assert set(arrays) == {"observed", "seen"} | stacks
    other.restore(arrays | {"number": np.zeros(2)})
    assert np.array_equal(other.act(policy, None), slots.act(policy, None))
    for each in (slots, other):
        each.look(policy, seen(2), FIRST, ~FIRST)
    assert np.array_equal(other.act(policy, None), slots.act(policy, None))


def test_nothing_is_remembered_where_nothing_is_stacked():
    assert not Slots(2, None).remembers
    assert not Slots(2, FrameRequest(2, 2), 1).remembers
    assert Slots(2, None, 2).remembers and Slots(2, FRAMES).remembers


def test_nobody_else_puts_observations_together():
    """But `rrl bench`, which makes some up, of no environment, to time the networks; `rrl probe`, of recorded states;
    and the wrapper that stacks features of an environment that is no run's."""
    root = Path(rrl.__file__).parent
    builders = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in ("Obs", "Stack"):
                    builders.add(path.relative_to(root).as_posix())
    others = {"bench/compute.py", "probes/measure.py", "probes/pictures.py", "encoders/observation.py"}
    assert builders - others == {"rollout/slots.py"}


@pytest.mark.parametrize(
    ("actions", "got"),
    [
        (np.zeros((2, 1), np.float32), r"float32 \[2, 1\]"),
        (np.zeros(2, np.float32), r"float32 \[2\]"),
        (np.zeros((2, 3)), r"float64 \[2, 3\]"),
        ([[0.0] * 3] * 2, "list"),
    ],
)
def test_actions_of_another_shape_or_type_are_refused(actions, got):
    policy = Summing()
    policy.act = lambda observed, noise: actions
    slots = Slots(2, FRAMES, 2)
    slots.look(policy, observation(1), ALL, NONE)
    with pytest.raises(UserError, match=rf"Summing.act must return an array of float32 \[2, 3\]; got {got}"):
        slots.act(policy, np.zeros((2, 3), np.float32))
