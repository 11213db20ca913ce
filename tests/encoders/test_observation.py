"""Encoders in front of any pixel environment: `rrl.EncodedObservation` and its vector form."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from PIL import Image
from plugins.encoder96 import Attention96
from torchvision.models import resnet18
from torchvision.transforms._presets import ImageClassification

import rrl
import rrl.envs
from rrl.encoders import ResNet
from rrl.encoders.base import Inference
from rrl.encoders.fixed import FixedEncoder
from rrl.encoders.observation import resized
from rrl.envs.base import FrameRequest
from rrl.registry import UserError

SMALL = Attention96(Attention96.Config(seed=3), cameras=1)
PLAIN = Inference()
PICTURE = Box(0, 255, (96, 96, 3), np.uint8)


class Film(gymnasium.Env):
    """Episodes of `length` steps whose pictures differ from step to step and from seed to seed."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, length=3, space=PICTURE, render_mode=None):
        self.length, self.observation_space, self.render_mode = length, space, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), 1.0, self.t == self.length, False, {}

    def seen(self):
        if isinstance(self.observation_space, Dict):
            return {key: self.drawn(space) for key, space in self.observation_space.items()}
        return self.drawn(self.observation_space)

    def drawn(self, space):
        if space.dtype == np.uint8:
            return self.np_random.integers(256, size=space.shape, dtype=np.uint8)
        return np.asarray(space.low + self.t, space.dtype) if isinstance(space, Box) else self.t

    def render(self):
        return np.full((50, 70, 3), 10 * self.t, np.uint8)[::-1]


def features(*pictures):
    return SMALL(torch.from_numpy(np.stack(pictures))).numpy()


def front(env, encoder=SMALL, **how):
    return rrl.EncodedObservation(env, encoder, inference=PLAIN, **how)


# ---- what comes out


@pytest.mark.parametrize("task", ["Door", "Relocate"])
def test_rrls_own_environments_work_as_they_are(task):
    env = gymnasium.make(f"rrl/Adroit{task}-v0", look="fast", frames=96)
    coded = rrl.EncodedObservation(env, "Attention96", seed=3, state="flat", inference=PLAIN)
    row, _ = coded.reset(seed=5)
    raw, _ = env.reset(seed=5)
    cameras = raw["frames"].shape[2] // 3
    expected = [features(raw["frames"][:, :, 3 * c : 3 * c + 3])[0] for c in range(cameras)]
    np.testing.assert_allclose(row, np.concatenate([*expected, raw["state"]]), rtol=1e-4, atol=1e-5)
    assert coded.observation_space.contains(row) and coded.encoder.cameras == cameras


def test_both_checkers_find_nothing_wrong():
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    made = gymnasium.make("rrl/AdroitDoor-v0", look="fast", frames=96, horizon=5)
    for state in ("flat", "dict"):
        env = rrl.EncodedObservation(made, "Attention96", state=state, stack=2, inference=PLAIN)
        for check in (check_env, check_for_sb3):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                check(env, skip_close_check=True) if check is check_env else check(env)
            told = [str(warning.message) for warning in caught]
            # gymnasium's doubts about all vectors without bounds, and about all wrappers.
            assert [text for text in told if "infinity" not in text and "unwrapped version" not in text] == []


def test_the_rest_of_an_observation_is_kept_dropped_or_put_behind():
    space = Dict({"cam": PICTURE, "joints": Box(-1, 1, (2, 2), np.float64), "mode": Discrete(5)})
    env = Film(space=space)
    kept = front(env, state="dict")
    seen, _ = kept.reset(seed=0)
    raw, _ = env.reset(seed=0)
    assert kept.observation_space.contains(seen) and seen.keys() == {"features", "joints", "mode"}
    np.testing.assert_array_equal(seen["joints"], raw["joints"])
    np.testing.assert_allclose(seen["features"], features(raw["cam"])[0], rtol=1e-4, atol=1e-5)
    assert front(env).observation_space.shape == (32,)
    with pytest.raises(UserError, match=r"'flat' takes Boxes alone, 'mode' is Discrete\(5\)"):
        front(env, state="flat")
    flat = front(Film(space=Dict({"cam": PICTURE, "joints": space["joints"]})), state="flat")
    assert flat.reset(seed=0)[0][32:].tolist() == [-1] * 4
    assert flat.observation_space.high[31:].tolist() == [np.inf, 1, 1, 1, 1]


def test_features_are_stacked_within_episodes():
    env = Film()
    coded = front(env, stack=3)
    first, _ = coded.reset(seed=0)
    np.testing.assert_array_equal(first.reshape(3, 32), np.tile(first[:32], (3, 1)))
    second = coded.step(env.action_space.sample())[0]
    third = coded.step(env.action_space.sample())[0]
    np.testing.assert_array_equal(third[:64], second[32:])
    assert not np.array_equal(third[64:], third[32:64])
    again, _ = coded.reset(seed=0)
    np.testing.assert_array_equal(again, first)


def test_pictures_of_a_learned_encoder_are_stacked(exported):
    fixed = FixedEncoder(FixedEncoder.Config(file=str(exported / "cartpole_rad.safetensors")), cameras=1)
    env = Film(space=Box(0, 255, (24, 24, 3), np.uint8))
    coded = front(env, fixed)
    coded.reset(seed=0)
    code = coded.step(None)[0]
    frames = [env.reset(seed=0)[0], env.step(None)[0]]
    stacked = torch.from_numpy(np.concatenate([frames[0], frames[0], frames[1]], axis=2))[None]
    np.testing.assert_allclose(code, fixed(stacked)[0].numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_rendered_is_encoded_too():
    env = Film(space=Box(-1, 1, (2,)), render_mode="rgb_array")
    coded = front(env, render=True, state="flat")
    coded.reset(seed=0)
    row = coded.step(None)[0]
    expected = resized(torch.full((1, 50, 70, 3), 10, dtype=torch.uint8), FrameRequest(96, 96), "bilinear")
    np.testing.assert_allclose(row[:32], SMALL(expected)[0].numpy(), rtol=1e-4, atol=1e-5)
    assert row[32:].tolist() == [0, 0]


# ---- pictures of another size


def test_pictures_are_resized_as_the_publisher_does():
    """Against torchvision's own transform of a picture from a file, and its network."""
    env = Film(space=Box(0, 255, (120, 160, 3), np.uint8))
    encoder = ResNet(ResNet.Config(depth=18, weights=None), cameras=1)
    stock = resnet18()
    stock.fc = torch.nn.Identity()
    stock.load_state_dict(encoder.network.state_dict())
    ours, _ = front(env, encoder).reset(seed=0)
    picture = Image.fromarray(env.reset(seed=0)[0])
    with torch.no_grad():
        theirs = stock.eval()(ImageClassification(crop_size=224, resize_size=256)(picture)[None])[0].numpy()
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_the_centre_is_cut_out_of_the_whole(interpolation):
    drawn = np.random.default_rng(0).integers(256, size=(60, 60, 3), dtype=np.uint8)
    stock = Image.fromarray(drawn).resize((40, 40), Image.Resampling[interpolation.upper()]).crop((4, 4, 36, 36))
    ours = resized(torch.from_numpy(drawn)[None], FrameRequest(32, 40), interpolation)[0].numpy()
    assert np.abs(ours.astype(int) - np.asarray(stock)).max() <= 2
    picture = torch.zeros(1, 40, 80, 3, dtype=torch.uint8)
    picture[:, :, 20:60] = 200  # the centre square
    assert (resized(picture, FrameRequest(32, 40), interpolation) == 200).all()
    assert resized(picture[:, :32, :32], FrameRequest(32, 40), interpolation).shape == (1, 32, 32, 3)


# ---- vector environments


def singles(seeds, steps):
    """What each environment's own wrapper gives, where an episode's end is followed by a reset in the next step."""
    rows = []
    for seed in seeds:
        env, ended = front(Film(2 + seed), stack=2), False
        row = [env.reset(seed=seed)[0]]
        for _ in range(steps):
            if ended:
                seen, ended = env.reset()[0], False
            else:
                seen, _, ended, _, _ = env.step(None)
            row.append(seen)
        rows.append(row)
    return np.stack(rows, axis=1)


def test_a_vector_is_encoded_in_one_batch_as_each_would_be():
    envs = SyncVectorEnv([lambda n=n: Film(2 + n) for n in range(3)])
    coded = rrl.EncodedVectorObservation(envs, SMALL, stack=2, inference=PLAIN)
    calls = []
    encode = coded._front._encode
    coded._front._encode = lambda frames: (calls.append(len(frames)), encode(frames))[1]
    seen = [coded.reset(seed=[0, 1, 2])[0]]
    seen += [coded.step(np.zeros((3, 1), np.float32))[0] for _ in range(7)]
    np.testing.assert_allclose(np.stack(seen), singles(range(3), 7), rtol=1e-4, atol=1e-5)
    assert calls == [3] * 8
    assert coded.observation_space.shape == (3, 64) and coded.single_observation_space.shape == (64,)


def test_without_autoreset_slots_are_reset_by_a_mask():
    mode = AutoresetMode.DISABLED
    envs = SyncVectorEnv([lambda: Film(2), lambda: Film(9)], autoreset_mode=mode)
    coded = rrl.EncodedVectorObservation(envs, SMALL, stack=2, inference=PLAIN)
    coded.reset(seed=[0, 1])
    still = np.zeros((2, 1), np.float32)
    coded.step(still)
    before = coded.step(still)[0]
    after, _ = coded.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[0, :32], after[0, 32:])
    moved = coded.step(still)[0]
    np.testing.assert_array_equal(moved[:, :32], after[:, 32:])


def test_slots_that_are_due_begin_anew_though_others_are_reset_before():
    envs = SyncVectorEnv([lambda: Film(2), lambda: Film(2)])
    coded = rrl.EncodedVectorObservation(envs, SMALL, stack=2, inference=PLAIN)
    coded.reset(seed=[0, 1])
    still = np.zeros((2, 1), np.float32)
    ended = np.zeros(2, bool)
    while not ended.all():
        _, _, ended, _, _ = coded.step(still)
    coded.reset(options={"reset_mask": np.array([True, False])})
    after = coded.step(still)[0]
    np.testing.assert_array_equal(after[1, :32], after[1, 32:])


def test_a_wrapper_of_the_other_kind_is_named():
    with pytest.raises(UserError, match="a vector environment needs"):
        rrl.EncodedObservation(SyncVectorEnv([lambda: Film(2)]), SMALL)
    with pytest.raises(UserError, match="a single one needs EncodedObservation"):
        rrl.EncodedVectorObservation(Film(2), SMALL)


def test_several_made_by_gymnasium_have_their_states_behind():
    envs = gymnasium.make_vec("rrl/AdroitDoor-v0", num_envs=2, look="fast", frames=96)
    coded = rrl.EncodedVectorObservation(envs, "Attention96", state="flat", inference=PLAIN, weights=None)
    seen, _ = coded.reset(seed=1)
    assert seen.shape == coded.observation_space.shape and seen.dtype == np.float32
    with pytest.raises(UserError, match="NEXT_STEP or DISABLED"):
        rrl.EncodedVectorObservation(SyncVectorEnv([Film], autoreset_mode=AutoresetMode.SAME_STEP), SMALL)


# ---- mistakes


@pytest.mark.parametrize(
    ("space", "encoder", "how", "told"),
    [
        (PICTURE, "Atention96", {}, r"no encoder is named 'Atention96'; did you mean 'Attention96'\?"),
        (PICTURE, "ResNet", {"dept": 18}, r"ResNet has no field dept"),
        (PICTURE, SMALL, {"depth": 18}, "'depth' is no setting here: settings go with an encoder's name"),
        (PICTURE, "PixelCNN", {}, "PixelCNN learns with an agent: nothing would train it here"),
        (PICTURE, "State", {}, "State sees no pictures"),
        (PICTURE, SMALL, {"state": "both"}, "state is 'drop', 'flat' or 'dict'; got 'both'"),
        (PICTURE, None, {}, "an encoder is a name, such as 'MobileNetV2', a Config or a built one; got None"),
        (Dict({"a": PICTURE}), SMALL, {"pictures": ("a", "a")}, "each part of the observation once"),
        (PICTURE, SMALL, {"stack": 0}, "stack is a number of feature vectors, 1 or more; got 0"),
        (PICTURE, SMALL, {"render": True}, "made with render_mode='rgb_array'; this one has None"),
        (Box(0, 255, (3, 96, 96), np.uint8), SMALL, {}, r"no pictures in the observation \(Box"),
        (Box(0, 1, (4,)), SMALL, {}, r"no pictures in the observation \(Box.*\n  say render=True"),
        (Dict({"a": PICTURE, "b": PICTURE}), SMALL, {}, r"which pictures\? The observation has a, b: say pictures="),
        (Dict({"a": PICTURE}), SMALL, {"pictures": "b"}, r"no pictures 'b' in the observation \(a: Box"),
        (Dict({"a": PICTURE, "b": PICTURE}), SMALL, {"pictures": ("a", "b")}, r"built for 1 camera\(s\); .* shows 2"),
        (Dict({"a": PICTURE, "features": Box(0, 1)}), SMALL, {"state": "dict"}, "a part 'features' of its own"),
    ],
)
def test_what_does_not_fit_is_told(space, encoder, how, told):
    with pytest.raises(UserError, match=told):
        front(Film(space=space), encoder, **how)


def test_importing_rrl_stays_light(tmp_path):
    code = "import rrl, sys; assert not {'torch', 'numpy', 'gymnasium'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        rrl.Nonsense  # noqa: B018
