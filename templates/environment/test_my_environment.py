"""What rrl counts on: episodes as promised, which go on bit for bit from a saved state, in their pictures too."""

from pathlib import Path

import numpy as np
from my_environment import MyEnvironment

from rrl.config import ginfile
from rrl.envs.base import FrameRequest

PICTURES = FrameRequest(size=32, crop_from=40)
"""What an encoder would ask for: the centre 32 pixels of 40."""


def made(frames=None):
    """(factory, one simulator)"""
    factory = MyEnvironment(MyEnvironment.Config())
    return factory, factory.make_one(frames)


def test_an_episode_is_as_promised():
    factory, sim = made()
    seen, _ = sim.reset(seed=0)
    assert seen["state"].shape == sim.observation_space["state"].shape
    again, _ = made()[1].reset(seed=0)
    np.testing.assert_array_equal(seen["state"], again["state"])
    rng, ended, steps = np.random.default_rng(0), False, 0
    while not ended:
        action = rng.uniform(-1, 1, sim.action_space.shape).astype(np.float32)
        seen, reward, terminated, truncated, info = sim.step(action)
        assert seen["state"].dtype == np.float32
        assert np.isfinite([*seen["state"], reward]).all()
        assert all(flag in info for flag in factory.flags)
        ended, steps = terminated or truncated, steps + 1
    assert terminated or steps == factory.horizon


def test_a_saved_episode_goes_on_bit_for_bit():
    factory, one = made(PICTURES)
    _, two = made(PICTURES)
    first, _ = one.reset(seed=1)
    assert first["frames"].shape == (32, 32, 3 * len(factory.cameras))
    two.reset(seed=2)
    push = np.full(one.action_space.shape, 0.5, np.float32)
    one.step(push)
    two.set_state(one.get_state())
    for ours, theirs in ((one.step(push), two.step(push)), (one.reset(), two.reset())):
        for name, value in ours[0].items():
            np.testing.assert_array_equal(value, theirs[0][name])


def test_its_gin_file_is_a_run():
    config = ginfile.load(Path(__file__).with_name("my_environment.gin"))
    assert isinstance(config.env, MyEnvironment.Config)
