"""Environments of gymnasium, whoever wrote them, as components."""

import random

import gymnasium
import numpy as np
import pydantic
import pytest
from PIL import Image

from rrl.config import ginfile
from rrl.envs import Adroit, FrameRequest, Gymnasium
from rrl.envs.any_gym_sim import fitted
from rrl.envs.base import seed_of
from rrl.envs.gym_packages import spec_of
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import UserError

TOY = "helpers.gym_tasks:helpers/Toy-v0"


def factory(name=TOY, **settings):
    return Gymnasium(Gymnasium.Config(id=name, **settings))


def test_actions_span_the_environments_range():
    env = factory(kwargs=(("wide", 1.0),)).make_one(None)
    env.reset(seed=0)
    for action, given in ((-1, -1), (0, 1), (1, 3), (5, 3)):
        env.step(np.full(1, action, np.float32))
        assert env._env.unwrapped.last == given


@pytest.mark.parametrize(
    ("settings", "size"),
    [({}, 3), ({"state": "point"}, 2), ({"state_indices": (2,)}, 1), ({"state": "none"}, 0)],
)
def test_the_state_is_what_was_asked_for(settings, size):
    env = factory(**settings).make_one(None)
    seen = env.reset(seed=4)[0]["state"]
    raw = env._env.unwrapped.observed()
    whole = np.array([*raw["goal"], *raw["point"]], np.float32)  # by the order of the keys, without the picture
    expected = {3: whole, 2: whole[1:], 1: whole[2:], 0: whole[:0]}[size]
    np.testing.assert_array_equal(seen, expected)
    assert seen.dtype == np.float32 and env.observation_space["state"].shape == (size,)


@pytest.mark.parametrize("key", [None, "picture"])
def test_pictures_are_fitted_as_torchvision_would(key):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    env = factory(picture_key=key, state="none").make_one(FrameRequest(12, 14))
    frames = env.reset(seed=4)[0]["frames"]
    whole = Image.fromarray(env._env.unwrapped.render())
    theirs = np.asarray(v2.CenterCrop(12)(v2.Resize(14)(whole)))
    np.testing.assert_array_equal(frames, theirs)
    assert fitted(np.asarray(whole), FrameRequest(20, 20)).shape == (20, 20, 3)


def test_an_episode_ends_at_its_limit_and_success_is_read_from_info():
    env = factory(success="solved").make_one(None)
    env.reset(seed=1)
    still = np.full(1, -0.5, np.float32)  # torque 0
    steps = [env.step(still) for _ in range(12)]
    assert [step[3] for step in steps] == [False] * 11 + [True]
    assert not any(step[2] for step in steps)
    near = abs(env._env.unwrapped.x) < 0.2
    assert {step[4]["success"] for step in steps} == {near}
    assert factory(success="solved", success_steps=3).score.steps == 3
    assert not factory().score.counted


def test_a_list_of_names_under_the_success_key_is_counted():
    env = factory(kwargs=(("solved", "names"),), success="solved", success_threshold=1.5).make_one(None)
    env.reset(seed=1)
    for _ in range(12):
        told = env.step(np.full(1, -0.5, np.float32))[4]["success"]
        assert told == (abs(env._env.unwrapped.x) < 0.2)


def test_a_success_that_info_never_tells_is_told_once(capfd):
    env = factory(success="done_well").make_one(None)
    for _ in range(2):
        env.reset(seed=1)
        for _ in range(12):
            assert env.step(np.zeros(1, np.float32))[4] == {"success": False}
    assert capfd.readouterr().err.count("has no such key in its info (it has solved)") == 1


@pytest.mark.parametrize("key", ["solvd", "sovled"])
def test_a_misspelt_success_is_refused_in_the_first_step(key):
    env = factory(success=key).make_one(None)
    env.reset(seed=1)
    with pytest.raises(UserError, match=rf"'{key}'.* has no such key in its info \(it has solved\)\n.*mean 'solved'\?"):
        env.step(np.zeros(1, np.float32))


def test_a_numbered_success_may_come_later():
    env = factory(success="solved2").make_one(None)
    env.reset(seed=1)
    assert env.step(np.zeros(1, np.float32))[4] == {"success": False}


@pytest.mark.parametrize("name", [TOY, "Pusher-v5", "gymnasium_robotics:AdroitHandDoor-v1"])
def test_an_interrupted_episode_goes_on_bit_for_bit(name):
    one, two = (factory(name).make_one(FrameRequest(24, 24)) for _ in range(2))
    rng = np.random.default_rng(0)
    one.reset(seed=3)
    for _ in range(5):
        one.step(rng.uniform(-1, 1, one.action_space.shape).astype(np.float32))
    two.reset(seed=8)
    two.set_state(one.get_state())
    action = rng.uniform(-1, 1, one.action_space.shape).astype(np.float32)
    ours, theirs = one.step(action), two.step(action)
    for key, value in ours[0].items():
        np.testing.assert_array_equal(value, theirs[0][key])
    assert ours[1:] == theirs[1:]
    two.reset(options={"initial": one.initial()})
    np.testing.assert_array_equal(two.physics()[0], factory_start(name))


def test_an_episode_begins_at_given_positions_and_velocities():
    """As gymnasium's own `set_state` after a reset; saved and gone on with too."""
    env, theirs = factory("Pusher-v5").make_one(None), gymnasium.make("Pusher-v5").unwrapped
    theirs.reset(seed=1)
    qpos, qvel = theirs.data.qpos + 0.1, theirs.data.qvel - 0.2
    theirs.set_state(qpos, qvel)
    start = {"seed": np.array([5.0]), "qpos": qpos, "qvel": qvel}  # one number: as earlier versions wrote seeds
    seen = env.reset(options={"initial": start})[0]["state"]
    np.testing.assert_array_equal(seen, theirs._get_obs().astype(np.float32))
    action = np.full(7, 0.3, np.float32)
    env.step(action)
    other = factory("Pusher-v5").make_one(None)
    other.set_state(env.get_state())
    for _ in range(2):
        raw, reward, *_ = theirs.step(2 * action)
    ours, again = env.step(action), other.step(action)
    np.testing.assert_array_equal(ours[0]["state"], again[0]["state"])
    np.testing.assert_allclose(ours[0]["state"], raw, atol=1e-6)
    assert ours[1] == again[1] == pytest.approx(reward, rel=1e-6)
    shown = env.show(qpos, qvel)["state"]
    np.testing.assert_array_equal(shown, seen)
    with pytest.raises(UserError, match="has the arrays seed, qpos, qvel; got qpos"):
        env.reset(options={"initial": {"qpos": qpos}})


def test_a_state_of_an_earlier_version_goes_on():
    one, two = (factory("Pusher-v5").make_one(None) for _ in range(2))
    one.reset(seed=3)
    actions = np.full((2, 7), 0.25, np.float32)
    for action in actions:
        seen = one.step(action)[0]["state"]
    np.testing.assert_array_equal(two.set_state({"seed": np.array(3), "actions": actions})["state"], seen)


def test_seeds_of_64_bits_and_nested_observations():
    env = factory("helpers.gym_tasks:helpers/Nested-v0").make_one(None)
    seed = 2**64 - 3
    seen = env.reset(seed=seed)[0]["state"]
    raw = env._env.unwrapped.observed()
    np.testing.assert_array_equal(seen, np.array([*raw["a"]["goal"], *raw["a"]["point"], *raw["b"]], np.float32))
    assert seed_of(env.initial()["seed"]) == seed
    np.testing.assert_array_equal(env.reset(options={"initial": env.initial()})[0]["state"], seen)


def test_a_list_of_nested_dicts_is_the_state_in_the_order_of_its_keys():
    env = factory("gymnasium_robotics:FrankaKitchen-v1", kwargs=(("tasks_to_complete", ("kettle", "microwave")),))
    seen = env.make_one(None).reset(seed=0)[0]["state"]
    assert seen.shape == (8 + 8 + 59,)
    np.testing.assert_array_equal(seen[8 + 7], np.float32(-0.75))  # desired_goal: kettle 7, then the microwave's door


@pytest.mark.parametrize("start", ["early", "global"])
def test_a_seed_decides_for_who_draws_too_early_or_from_a_global_generator(start, capfd):
    """And nobody else's numbers are moved."""
    made = factory(kwargs=(("start", start),))
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    made.probe(None)
    env = made.make_one(None)
    firsts = [env.reset(seed=seed)[0]["state"].tolist() for seed in (5, 6, 5)]
    assert firsts[0] == firsts[2] != firsts[1]
    after = np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert np.array_equal(after[0], before[0]) and after[1] == before[1]
    assert "note" not in capfd.readouterr().err


def test_who_does_not_repeat_itself_is_told_before_a_run_and_when_an_episode_was_to_go_on(capfd):
    made = factory(kwargs=(("noise", 0.01),), state="goal")  # of which the state says nothing
    made.probe(None)
    assert "note: helpers/Toy-v0 does not repeat itself: one seed and the same" in capfd.readouterr().err
    one, two = made.make_one(None), made.make_one(None)
    one.reset(seed=3)
    for _ in range(4):
        one.step(np.zeros(1, np.float32))
    for _ in range(2):
        two.set_state(one.get_state())
    told = capfd.readouterr().err
    assert told.count("does not repeat itself: after the same 4 actions from seed 3 a number is off by ") == 1
    steps = [two.step(np.zeros(1, np.float32))[3] for _ in range(8)]
    assert steps == [False] * 7 + [True], "its steps are counted on"
    before = {name: value for name, value in one.get_state().items() if name != "seen"}  # as earlier versions wrote it
    two.set_state(before)
    assert not capfd.readouterr().err


def factory_start(name):
    env = factory(name).make_one(None)
    env.reset(seed=3)
    return env.physics()[0]


def test_gymnasium_robotics_own_door_is_our_stock_door():
    """Equal joint angles, observations and sparse rewards over an episode of random actions."""
    theirs = factory("gymnasium_robotics:AdroitHandDoorSparse-v1", success="success").make_one(None)
    ours = Adroit(Adroit.Config(task="door", protocol="stock", reward="sparse", state="task")).make_one(None)
    seen = theirs.reset(seed=5)[0]
    model = theirs._env.unwrapped.model
    start = {"qpos": theirs.physics()[0], "qvel": theirs.physics()[1], "door_body_pos": model.body("frame").pos}
    np.testing.assert_array_equal(ours.reset(options={"initial": start})[0]["state"], seen["state"])
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.uniform(-1, 1, 28).astype(np.float32)
        a, b = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(ours.physics()[0], theirs.physics()[0])
        np.testing.assert_array_equal(a[0]["state"], b[0]["state"])
        assert a[1] == b[1] and a[4]["success"] == b[4]["success"]
    assert a[3] and b[3]


def test_named_cameras_are_drawn_as_an_encoder_asks():
    name = "gymnasium_robotics:AdroitHandDoor-v1"
    env = factory(name, cameras=("vil_camera", "fixed"), look="fast").make_one(FrameRequest(28, 32))
    frames = env.reset(seed=0)[0]["frames"]
    assert frames.shape == (28, 28, 6) and not np.array_equal(frames[..., :3], frames[..., 3:])
    assert env.render().shape == (480, 480, 3)


def test_an_environment_shows_itself_through_the_camera_that_its_arguments_name():
    name, request = "gymnasium_robotics:AdroitHandDoor-v1", FrameRequest(28, 32)
    named = factory(name, cameras=("fixed",), look="fast").make_one(request).reset(seed=0)[0]["frames"]
    given = factory(name, kwargs=(("camera_name", "fixed"),), look="fast").make_one(request).reset(seed=0)[0]["frames"]
    np.testing.assert_array_equal(given, named)


def test_a_camera_that_hangs_upside_down_is_turned():
    name, request = "gymnasium_robotics:AdroitHandDoor-v1", FrameRequest(28, 32)
    pictures = []
    for turned in ((), ("fixed",)):
        env = factory(name, cameras=("vil_camera", "fixed"), look="fast", turned=turned).make_one(request)
        pictures.append(env.reset(seed=0)[0]["frames"])
    np.testing.assert_array_equal(pictures[1][..., :3], pictures[0][..., :3])
    np.testing.assert_array_equal(pictures[1][..., 3:], pictures[0][::-1, ::-1, 3:])


def test_a_model_without_cameras_is_looked_at_from_anywhere():
    request, pictures = FrameRequest(28, 32), []
    for view in (None, (4.0, 90.0, -45.0), (2.2, 180.0, -50.0)):
        env = factory("Pusher-v5", view=view, look="fast").make_one(request)
        pictures.append(env.reset(seed=0)[0]["frames"])
    np.testing.assert_array_equal(pictures[1], pictures[0])  # Pusher's own view
    assert not np.array_equal(pictures[2], pictures[0])


def test_it_works_in_worker_processes():
    envs = [WorkerVectorEnv(factory(), 2, FrameRequest(12, 14), workers) for workers in (0, 2)]
    for env in envs:
        env.reset(seed=[1, 2])
        env.step(np.array([[0.3], [-0.2]], np.float32))
    here, there = (env.observation() for env in envs)
    for key, value in here.items():
        np.testing.assert_array_equal(value, there[key])
    for env in envs:
        env.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"id": "Pusher-v55"}, "gymnasium knows no environment 'Pusher-v55'"),
        ({"id": "no_such_module:X-v0"}, "needs the module no_such_module"),
        ({"id": "helpers.gym_tasks:helpers/Endless-v0"}, "has no limit of steps of its own"),
        ({"id": TOY, "cameras": ("a",), "picture_key": "picture"}, "not both"),
        ({"id": TOY, "turned": ("a",)}, "'a' is not among Gymnasium.cameras"),
        ({"id": TOY, "cameras": ("a",), "view": (1.0, 0.0, 0.0)}, "without cameras"),
        ({"id": TOY, "kwargs": (("wide", 1.0), ("wide", 2.0))}, "'wide' stands twice"),
        ({"id": TOY, "success_steps": 12}, "no episode of 12 steps can succeed in more"),
    ],
)
def test_what_the_settings_tell_is_refused_at_once(settings, told):
    with pytest.raises(pydantic.ValidationError, match=told):
        Gymnasium.Config(**settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kwargs": (("actions", "discrete"),)}, r"actions Discrete\(3\)"),
        ({"kwargs": (("actions", "unbounded"),)}, "without bounds"),
        ({"kwargs": (("colour", "red"),)}, "can't be made: TypeError"),
        ({"state": "pint"}, "no such key; it has goal, picture, point"),
        ({"state_indices": (0, 7)}, "7 is beyond the 3 numbers"),
        ({"cameras": ("top",)}, "has no MuJoCo model with cameras"),
        ({"id": "Pusher-v5", "cameras": ("top",)}, "its model has none"),
        ({"id": "gymnasium_robotics:AdroitHandDoor-v1", "cameras": ("topp",)}, "it has fixed, vil_camera"),
        ({"picture_key": "goal"}, "has no picture, uint8"),
        ({"view": (1.0, 0.0, 0.0)}, "leave `Gymnasium.view` away"),
        ({"kwargs": (("name", True),)}, "no array of numbers.*name a part that is one with `Gymnasium.state`"),
        ({"kwargs": (("solved", "two"),), "success": "solved"}, r"has array\(\[.*a truth value or a list of names"),
        ({"kwargs": (("broken", 2),)}, r"(?s)failed in step 3 .* seed 0: ValueError: the motor .*gym_tasks.py:"),
    ],
)
def test_what_the_environment_tells_is_refused(settings, told):
    with pytest.raises(UserError, match=told):
        factory(**{"name" if key == "id" else key: value for key, value in settings.items()}).probe(None)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_raises_says_when_and_why_wherever_it_runs(workers):
    env = WorkerVectorEnv(factory(kwargs=(("broken", 2),)), 1, None, workers)
    env.reset(seed=[17])
    with pytest.raises(
        UserError, match=r"failed in step 3 of the episode with seed 17: ValueError: the motor is on fire"
    ):
        for _ in range(3):
            env.step(np.zeros((1, 1), np.float32))
    env.close()


def test_its_settings_and_versions_are_facts():
    facts = factory(success="solved").facts()
    assert facts["id"] == TOY and facts["env"] == "gymnasium_helpers_Toy-v0" and facts["horizon"] == "12"
    assert facts["gymnasium"] == gymnasium.__version__
    assert "gymnasium-robotics" in factory("gymnasium_robotics:AdroitHandDoor-v1").facts()


def test_tasks_that_an_argument_chooses_have_names_of_their_own():
    kitchen = factory("gymnasium_robotics:FrankaKitchen-v1", kwargs=(("tasks_to_complete", ("light switch",)),))
    assert kitchen.name == "gymnasium_FrankaKitchen-v1_light_switch"
    assert kitchen.config.label() == "FrankaKitchen-v1 light switch"
    assert factory(kwargs=(("wide", 1.0), ("broken", 2))).name == factory().name


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("four", "failed in step 1 of the episode with seed 0: ValueError: not enough values to unpack"),
        ("no info", "failed in step 1 of the episode with seed 0: TypeError: 'NoneType'"),
        ("exit", "failed in step 1 of the episode with seed 0: SystemExit: 5"),
        ("longer", "observes 4 numbers now; by its observation space they are 3"),
        ("floats", r"must render uint8 \[H, W, 3\] \(rgb_array\); it gave float64 \(20, 30, 3\)"),
        ("four channels", r"it gave uint8 \(20, 30, 4\)"),
        ("empty", r"it gave uint8 \(0, 0, 3\)"),
        ("whole numbers", "rrl's agents act in one or more continuous numbers"),
    ],
)
def test_who_breaks_gymnasiums_form_is_told_so(how, told):
    with pytest.raises(UserError, match=told):
        env = factory("helpers.gym_tasks:helpers/Odd-v0", kwargs=(("how", how),)).make_one(FrameRequest(12, 14))
        env.reset(seed=0)
        env.step(np.zeros(1, np.float32))


def test_who_sees_nothing_is_told_before_a_run():
    odd = factory("helpers.gym_tasks:helpers/Odd-v0", kwargs=(("how", "only pictures"),))
    odd.probe(FrameRequest(12, 14))
    with pytest.raises(UserError, match="this policy would see nothing"):
        odd.probe(None)
    assert not factory(state_indices=()).has_state


def test_a_name_that_is_meant_has_its_module():
    with pytest.raises(UserError, match=r"did you mean 'gymnasium_robotics:FrankaKitchen-v1'\?"):
        spec_of("gymnasium_robotics:FrankaKitchen-v2")
    with pytest.raises(UserError, match=r"needs the module \.\.brk, which can't be imported"):
        spec_of("..brk:E-v0")


def test_one_task_laid_over_another_keeps_nothing_of_it():
    over = ginfile.load(["gym_kitchen_rrl_sac_mobilenetv2", "env/gym_adroit_door"], []).env
    assert over == ginfile.bound("env/gym_adroit_door", "env")
