"""MJRL's reacher and peg insertion: sizes, rewards and resets as published, exact states, pictures."""

import math

import numpy as np
import pytest

from rrl.envs import MJRL, FrameRequest

TASKS = ("reacher", "peg_insertion")


def make(task, frames=None, **settings):
    return MJRL(MJRL.Config(task=task, **{"state": "task", **settings})).make_one(frames)


def mean_return(task, act):
    env = make(task)
    rng = np.random.default_rng(0)
    total = 0.0
    for seed in range(60):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, reward, terminated, ended, _ = env.step(act(rng).astype(np.float32))
            assert not terminated
            total += reward
    return total / 60


@pytest.mark.parametrize(
    ("task", "zero", "uniform"), [("reacher", -326, -312), ("peg_insertion", -395, -354)], ids=TASKS
)
def test_returns_of_policies_that_know_nothing(task, zero, uniform):
    """Within 25 of those measured in MJRL's own models: geometry, masses, torques and friction are as there."""
    assert mean_return(task, lambda rng: np.zeros(7)) == pytest.approx(zero, abs=25)
    assert mean_return(task, lambda rng: rng.uniform(-1, 1, 7)) == pytest.approx(uniform, abs=25)


@pytest.mark.parametrize("task", TASKS)
def test_an_episode(task):
    env = make(task)
    first = env.reset(seed=0)[0]["state"]
    tip = {"reacher": (0.821, -0.6, 0.0), "peg_insertion": (1.001, -0.188, -0.15)}[task]
    assert first.shape == (20,)
    assert np.allclose(first[:14], 0) and np.allclose(first[14:17], tip, atol=1e-6)
    before = np.zeros(7)
    for t in range(50):
        observed, reward, _, truncated, info = env.step(np.full(7, 0.3, np.float32))
        state = observed["state"].astype(np.float64)
        qpos, qvel = env.physics()
        assert np.allclose(state[:7], qpos, atol=1e-6)
        assert np.allclose(state[7:14], qvel * (0.04 if task == "reacher" else 1), rtol=1e-6, atol=1e-6)
        away = state[14:17] - state[17:]
        distance = math.hypot(*away)
        bonus = 5 * (distance < 0.06) if task == "peg_insertion" else 0
        assert reward == pytest.approx(-sum(abs(away)) - 5 * distance + bonus, abs=1e-5)
        assert truncated == (t == 49) and not info["success"]
        assert not np.array_equal(qpos, before)
        before = qpos


def test_the_reachers_targets_fill_their_box():
    env = make("reacher")
    targets = np.array([env.reset(seed=seed)[0]["state"][17:] for seed in range(300)])
    for axis, half in enumerate((0.3, 0.2, 0.25)):
        assert np.abs(targets[:, axis]).max() <= half and np.ptp(targets[:, axis]) > 1.9 * half


def test_the_slot_moves_with_the_target():
    env = make("peg_insertion")
    for seed in range(50):
        target = env.reset(seed=seed)[0]["state"][17:]
        assert 0.1 <= target[1] <= 0.5 and np.allclose(target[[0, 2]], (0, -0.5))
        far, near = (env._data.body(name).xpos[1] - target[1] for name in ("far", "near"))
        assert (far, near) == (pytest.approx(0.226, abs=1e-6), pytest.approx(-0.206, abs=1e-6))
        assert env._data.geom("guide").xpos[1] == pytest.approx(0.266)


def test_the_peg_fits_into_the_slot_and_through_no_wall():
    env = make("peg_insertion")
    env.reset(seed=0)
    data, model = env._data, env._model
    width = 2 * (model.geom("right").pos[0] - model.geom("right").size[0])
    assert 0.06 < width < 0.07 and 2 * model.geom("peg").size[0] == pytest.approx(0.056)
    pairs = set()
    rng = np.random.default_rng(0)
    for seed in range(40):
        env.reset(seed=seed)
        push = rng.uniform(-1, 1, 7)
        for _ in range(50):
            env.step(push.astype(np.float32))
            pairs |= {tuple(sorted((int(a), int(b)))) for a, b in data.contact.geom}
    peg = model.geom("peg").id
    assert pairs and all(peg in pair for pair in pairs)


@pytest.mark.parametrize("task", TASKS)
def test_success_is_where_the_episode_ends(task):
    env = make(task, horizon=2)
    env.reset(seed=0)
    initial = env.initial()
    tip = env._data.site("hand" if task == "reacher" else "peg_bottom").xpos.copy()
    for offset, success in ((0.04, True), (0.07, False)):
        env.reset(options={"initial": {**initial, "target_pos": tip + [offset, 0, 0]}})
        still = np.zeros(7, np.float32)
        assert [env.step(still)[4]["success"] for _ in range(2)] == [False, success]


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_state_goes_on_bit_for_bit(task):
    one, two = (make(task, FrameRequest(24, 32), look="fast") for _ in range(2))
    one.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        one.step(rng.uniform(-1, 1, 7).astype(np.float32))
    two.reset(seed=2)
    two.set_state(one.get_state())
    for _ in range(5):
        action = rng.uniform(-1, 1, 7).astype(np.float32)
        ours, theirs = one.step(action), two.step(action)
        for name, value in ours[0].items():
            np.testing.assert_array_equal(value, theirs[0][name])
        assert ours[1:] == theirs[1:]
    np.testing.assert_array_equal(one.reset()[0]["frames"], two.reset()[0]["frames"])


@pytest.mark.parametrize("task", TASKS)
def test_target_and_tip_are_in_the_picture(task):
    """They are seen: making either invisible changes the picture that an encoder's centre crop keeps."""
    env = make(task, FrameRequest(112, 128), look="fast")
    for seed in range(10):
        whole = env.reset(seed=seed)[0]["frames"].astype(int)
        shapes = {"reacher": ("target", "hand"), "peg_insertion": ("target", "peg")}[task]
        for shape in shapes:
            part = env._model.site(shape) if shape == "target" else env._model.geom(shape)
            colour = part.rgba.copy()
            part.rgba[3] = 0
            hidden = env.show(*env.physics())["frames"].astype(int)
            part.rgba[:] = colour
            assert np.abs(whole - hidden).max() > 40, (shape, seed)
