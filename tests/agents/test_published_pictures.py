"""What each published method's network sees, against the steps of its released code, written down again in numpy.

Frozen networks' pictures stand in `encoders/test_encoders.py` (torchvision's own transforms), dm_control's in
`envs/test_dmcontrol.py` (its own renderer).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.sac_agents import some_batch

from rrl.agents.ferm import FERM
from rrl.agents.rad import CURL, RAD, SACAE
from rrl.config import ginfile
from rrl.encoders import AutoencoderCNN, ContrastiveCNN, PixelCNN
from rrl.encoders.base import Inference
from rrl.envs.base import FrameRequest
from rrl.envs.dmcontrol import DMControl
from rrl.registry import build
from rrl.rollout.data import Obs
from rrl.run import policies

# ---- the steps of the released code, on pictures [channels, side, side]


def window(x, side, top, left):
    return x[:, top : top + side, left : left + side]


def centre(x, side):
    start = (x.shape[-1] - side) // 2
    return window(x, side, start, start)


def placed(x, side, top, left):
    canvas = np.zeros((len(x), side, side), x.dtype)
    canvas[:, top : top + x.shape[-1], left : left + x.shape[-1]] = x
    return canvas


@dataclass
class Published:
    """A method's pictures; offsets are (top, left)."""

    agent: type
    encoder: type
    settings: dict = field(default_factory=dict)
    cameras: int = 1
    render: int = 100
    stack: int = 3
    evaluated: Callable = lambda x: centre(x, 84)
    collected: Callable = lambda x: centre(x, 84)
    trained: Callable = lambda x, top, left: window(x, 84, top, left)
    offsets: int = 17
    """How many there are in each direction."""
    shared: bool = False
    """Do s and s' have the same?"""


METHODS = {
    "RAD, crop": Published(RAD, PixelCNN),
    # `sample_rad` and `evaluate` cut the centre 100 of 108; the loop that collects gives `sample_action` all of it.
    "RAD, translate": Published(
        RAD,
        PixelCNN,
        {"augmentation": "translate"},
        render=108,
        evaluated=lambda x: placed(centre(x, 100), 108, 4, 4),
        collected=lambda x: x,
        trained=lambda x, top, left: placed(centre(x, 100), 108, top, left),
        offsets=9,
        shared=True,
    ),
    "CURL": Published(CURL, ContrastiveCNN, offsets=16),
    "SAC+AE": Published(
        SACAE,
        AutoencoderCNN,
        render=84,
        evaluated=lambda x: x,
        collected=lambda x: x,
        trained=lambda x, top, left: x,
        offsets=1,
    ),
    "FERM": Published(FERM, ContrastiveCNN, {"stack": 1}, cameras=2, stack=1, offsets=16),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def agent_of(method, **settings):
    """The published sides with a small network."""
    encoder = method.encoder(method.encoder.Config(**method.settings, filters=2, features=4), method.cameras)
    config = method.agent.Config(hidden=(8,), replay=200, init_steps=0, **settings)
    context = {"state_dim": 0, "action_dim": 2, "seed": 0, "inference": Inference()}
    return method.agent(config, encoder=encoder, **context)


def network_sees(agent):
    """A list that gets every input of the convolutions that act and learn: float32 [B, C, side, side]."""
    seen = []
    agent.pixels.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().numpy()))
    return seen


def stacks_of(agent, rows):
    """What the agent kept, uint8 [B, stack, n] -> pictures [B, channels, side, side], oldest first."""
    pictures = rows.reshape(*rows.shape[:2], *agent.picture)
    return np.moveaxis(np.concatenate(list(np.moveaxis(pictures, 1, 0)), axis=-1), -1, 1)


@every_method
def test_frames_are_rendered_whole_in_the_published_size(method):
    assert method.encoder.Config(**method.settings).frames() == FrameRequest(method.render, method.render, method.stack)


@every_method
def test_acting_sees_what_the_released_code_acts_on(method):
    agent = agent_of(method)
    rows = some_batch(agent, count=3).rows[:, 1:]
    seen = network_sees(agent)
    agent.act(rows.reshape(3, -1), None)
    agent.act(rows.reshape(3, -1), np.zeros((3, 2), np.float32))
    stacks = stacks_of(agent, rows)
    assert stacks.shape == (3, 3 * method.cameras * method.stack, method.render, method.render)
    for views, published in zip(seen, (method.evaluated, method.collected), strict=True):
        expected = np.stack([published(x) for x in stacks]).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(views, expected)


@every_method
def test_learning_sees_the_released_codes_random_views(method):
    """Each stack's first two channels tell every pixel's place, the others are noise."""
    agent = agent_of(method, batch=128)
    agent.optimisers.pop("own", None)  # CURL's and SAC+AE's own losses look at further views
    batch = some_batch(agent, count=128)
    places = np.moveaxis(np.indices((method.render, method.render)) + 1, 0, -1)
    batch.rows.reshape(128, method.stack + 1, *agent.picture)[..., :2] = places
    seen = network_sees(agent)
    agent.learn(batch)
    before, after = (stacks_of(agent, rows) for rows in (batch.rows[:, :-1], batch.rows[:, 1:]))
    drawn = []
    for stacks, views in zip((after, before, before), seen, strict=True):  # s' for the target; s for critics and actor
        drawn.append([])
        for x, view in zip(stacks, np.rint(views * 255).astype(np.uint8), strict=True):
            offset = np.abs(place_of_the_middle(view, method) - place_of_the_middle(method.trained(x, 0, 0), method))
            np.testing.assert_array_equal(view, method.trained(x, *offset))
            drawn[-1].append(tuple(offset))
    assert drawn[1] == drawn[2]
    assert (drawn[0] == drawn[1]) == (method.shared or method.offsets == 1)
    for each in (*zip(*drawn[0], strict=True), *zip(*drawn[1], strict=True)):
        assert set(each) == set(range(method.offsets))


def place_of_the_middle(view, method):
    """(row, column) of the pixel that was rendered in the middle."""
    return np.argwhere((view[:2] == method.render // 2 + 1).all(0))[0]


def test_translate_shows_the_centre_of_what_is_rendered():
    """Cartpole as its environment draws it: the whole view, in 100 pixels and not in 108, is another picture."""
    env = DMControl(DMControl.Config(domain="cartpole", task="swingup", look="fast"))
    method = METHODS["RAD, translate"]
    agent = agent_of(method)
    frames = env.make_one(method.encoder.Config(**method.settings).frames()).reset(seed=0)[0]["frames"]
    seen = network_sees(agent)
    agent.act(np.tile(agent.observe(Obs(frames[None], np.zeros((1, 0), np.float32))), 3), None)
    large = np.moveaxis(env.make_one(FrameRequest(108, 108)).reset(seed=0)[0]["frames"], -1, 0)
    shown = np.rint(seen[0][0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(shown, np.tile(placed(centre(large, 100), 108, 4, 4), (3, 1, 1)))
    small = np.moveaxis(env.make_one(FrameRequest(100, 100)).reset(seed=0)[0]["frames"], -1, 0)
    other = np.abs(centre(large, 100).astype(int) - small).max(0) > 8
    assert other.mean() > 0.1


# ---- what was recorded before the centre was cut


def recorded_before(name, *overrides):
    """A run's `config.gin` as it was written before `PixelEncoder.Config.centre`: the whole view in 100 pixels."""
    text = ginfile.dumps(ginfile.load(name, overrides))
    lines = [line for line in text.splitlines() if ".centre = " not in line]
    assert len(lines) == len(text.splitlines()) - 1
    return "\n".join(lines).replace("PixelCNN.render = 108", "PixelCNN.render = 100") + "\n"


def test_a_run_recorded_before_keeps_its_view(tmp_path):
    """Read again, resumed or evaluated, it sees what it learnt from; what is written of it says so."""
    text = recorded_before("dmc_cartpole_swingup_rad", "PixelCNN.filters = 2", "RAD.hidden = (8,)")
    config = ginfile.loads(text, "config.gin")
    assert config.encoder.frames() == FrameRequest(100, 100, 3)
    assert (config.encoder.centre, config.encoder.canvas) == (100, 108)
    assert ginfile.loads(ginfile.dumps(config), "config.gin") == config
    encoder, context = build(config.encoder, cameras=1), {"state_dim": 0, "action_dim": 1}
    agent = build(config.agent, encoder=encoder, **context, seed=0, inference=Inference())
    policies.save(tmp_path / "p.safetensors", agent, config, context)
    loaded = policies.load_policy(tmp_path / "p.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    seen = network_sees(loaded.agent)
    loaded.act({"frames": frames, "state": np.zeros(0, np.float32)})
    loaded.agent.seen += 1_000  # past the random actions
    loaded.act({"frames": frames, "state": np.zeros(0, np.float32)}, np.zeros(1, np.float32))
    for views in seen:
        expected = np.tile(placed(np.moveaxis(frames, -1, 0), 108, 4, 4), (3, 1, 1))
        np.testing.assert_array_equal(np.rint(views[0] * 255), expected)
    assert len(seen) == 2


def test_shipped_files_show_the_published_pictures():
    for name, file in ginfile.shipped().items():
        if "_rad" in name and name.startswith("dmc_") and "fixed" not in name:
            crop = "walker" in name
            encoder = ginfile.load(file).encoder
            assert encoder == PixelCNN.Config(**METHODS["RAD, crop" if crop else "RAD, translate"].settings), name
