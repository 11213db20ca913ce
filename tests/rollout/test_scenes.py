"""Episodes whose pictures look otherwise: what reaches the policy, that nothing else changes, what is kept on disk."""

from dataclasses import replace

import numpy as np
import pytest

from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.scene import KINDS, OTHERS, Effect, Scene, draws
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout import effects
from rrl.rollout.data import Obs, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.rollout.kept import ARRAYS, KeptCollector
from rrl.store.pieces import Pieces

DOOR = Adroit(Adroit.Config(task="door", look="fast", horizon=4))
SMALL = FrameRequest(64, 64)


class Seer:
    """Acts on noise alone, keeps the pictures' bytes."""

    stack = 1

    def observe(self, obs: Obs):
        frames = np.zeros((len(obs.state), 0), np.uint8) if obs.frames is None else obs.frames
        return frames.reshape(len(frames), -1).copy()

    def act(self, observed, noise):
        return noise.copy()


def todo(scenes, count=5):
    plain = episodes(count, seed=2, stream=Stream.EVAL, noise=(4, 28))
    return [replace(episode, scene=scene) for episode, scene in zip(plain, scenes, strict=True)]


def collected(scenes, workers=0, groups=1, frames=SMALL):
    envs = WorkerVectorEnv(DOOR, 3, frames, workers)
    try:
        rollout = Collector(envs, groups).collect(Seer(), todo(scenes))
        envs.reset(seed=[7, 7, 7])
        return rollout, envs.observation().get("frames", np.zeros(0)).copy()
    finally:
        envs.close()


NOMINAL, AFTER = collected([Scene()] * 5)


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_pictures_change_and_nothing_else_does(kind):
    rollout, after = collected(draws(kind, 5, seed=0, severity=2))
    assert (np.abs(rollout.obs.astype(int) - NOMINAL.obs) > 2).any(axis=1).mean() >= 0.6  # some draws are slight
    for name in ("rewards", "actions", "terminated", "t"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(NOMINAL, name), err_msg=name)
    np.testing.assert_array_equal(after, AFTER)  # the nominal scene is back
    still, _ = collected(draws(kind, 5, seed=0, severity=0))
    np.testing.assert_array_equal(still.obs, NOMINAL.obs)


def test_equal_for_any_number_of_workers_and_beside_nominal_episodes():
    mixed = [Scene(), *draws("light direction", 2, seed=1), Scene(), *draws("blur", 1, seed=1, severity=2)]
    first, _ = collected(mixed)
    for workers, groups in ((2, 1), (0, 2)):
        other, _ = collected(mixed, workers, groups)
        np.testing.assert_array_equal(first.obs, other.obs)
    for i, scene in enumerate(mixed):
        same = np.array_equal(first.obs[first.episode == i], NOMINAL.obs[NOMINAL.episode == i])
        assert same == (scene == Scene())


def test_who_sees_nothing_does_the_same():
    plain, _ = collected([Scene()] * 5, frames=None)
    for kind in (*KINDS, *OTHERS):
        other, _ = collected(draws(kind, 5, seed=0), frames=None)
        np.testing.assert_array_equal(plain.rewards, other.rewards)


# ---- effects


def test_effects_are_their_closed_forms():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (32, 32, 6), np.uint8)
    assert (effects.affected(frames, Effect(brightness=0)) == 0).all()
    half = effects.affected(frames, Effect(brightness=0.5)).astype(int)
    assert np.abs(half - frames / 2).max() <= 1
    grey = effects.affected(frames, Effect(contrast=0))
    for camera in (0, 1):  # each by its own mean grey
        own = frames[:, :, 3 * camera : 3 * camera + 3]
        mean = np.floor(own @ [0.2989, 0.587, 0.114]).mean()
        assert np.abs(grey[:, :, 3 * camera : 3 * camera + 3] - mean).max() <= 1
    flat = np.full((32, 32, 3), 77, np.uint8)
    np.testing.assert_array_equal(effects.affected(flat, Effect(blur=0.05)), flat)
    blurred = effects.affected(frames, Effect(blur=0.05)).astype(int)
    assert blurred[8:-8, 8:-8].std() < 0.3 * frames.std()
    patched = effects.affected(flat, Effect(patch=(0.5, 0.25, 0.25), patch_rgb=(1, 0, 0)))
    assert (patched[4:12, 12:20] == [255, 0, 0]).all() and (patched != flat).any(axis=2).sum() == 64
    coarse = effects.affected(frames, Effect(jpeg=5))
    assert 1 < np.abs(coarse.astype(int) - frames).mean() < 128
    assert effects.seen(frames[None], [Scene()])[0] is not None and (frames == frames.copy()).all()


# ---- kept episodes


def test_finished_episodes_are_not_made_again(tmp_path):
    envs, policy = WorkerVectorEnv(DOOR, 2, SMALL, 0), Seer()
    plain = todo([Scene(), *draws("camera", 3, seed=3), Scene()])
    try:
        whole = Collector(envs).collect(policy, plain, keep=False)
        made = []
        kept = KeptCollector(envs, 1, policy, {"policy": "a"}, Pieces(tmp_path))
        first = kept.collect(policy, plain[:2], keep=False, progress=made.append)
        assert sum(made) == 8
        steps = []
        step = envs.begin_step
        envs.begin_step = lambda *args: (steps.append(1), step(*args))[1]
        all_of_them = kept.collect(policy, plain, keep=False)
        assert len(steps) == 8  # of three episodes, two at a time
        assert first.episodes == 2
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(all_of_them, name), getattr(whole, name), err_msg=name)
        assert all_of_them.success_steps == whole.success_steps and all_of_them.flags.keys() == whole.flags.keys()
        steps.clear()
        kept.collect(policy, plain, keep=False)
        assert steps == []
        for other in (KeptCollector(envs, 1, policy, {"policy": "b"}, Pieces(tmp_path)), kept):
            changed = plain if other is not kept else [replace(plain[0], scene=Scene(light_moved=(0.1, 0, 0)))]
            other.collect(policy, changed, keep=False)
            assert steps
            steps.clear()
        kept.collect(Seer(), plain, keep=False)  # another policy
        assert steps
    finally:
        envs.close()


def test_what_is_read_back_cost_what_it_cost(tmp_path):
    envs, pieces = WorkerVectorEnv(DOOR, 2, SMALL, 0), Pieces(tmp_path)
    try:
        kept = KeptCollector(envs, 1, policy := Seer(), {"policy": "a"}, pieces)
        made = kept.collect(policy, todo([Scene()] * 3, 3), keep=False)
        again = kept.collect(policy, todo([Scene()] * 3, 3), keep=False)
        assert again.seconds == made.seconds and again.counts == made.counts
        assert made.counts == {"encode": 20, "act": 16}  # two slots, twice four steps, two last observations
        assert again.seconds["total"] > again.seconds["render"] > 0
        # Earlier versions kept no costs: what is known of some chunks is not the whole.
        (path, _) = sorted(pieces.folder.iterdir())
        with np.load(path) as file:
            old = {name: file[name] for name in file.files if not name.startswith(("seconds", "counts"))}
        np.savez(path, **old)
        partly = kept.collect(policy, todo([Scene()] * 3, 3), keep=False)
        assert partly.seconds == {} and partly.counts == {} and np.array_equal(partly.rewards, made.rewards)
    finally:
        envs.close()
