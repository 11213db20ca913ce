"""The shipped tasks of other packages: what is seen of them, and that they repeat themselves."""

import numpy as np
import pytest

from rrl import registry
from rrl.config import ginfile
from rrl.envs import FrameRequest, Gymnasium

METHODS = ["encoder/mobilenetv2", "method/rrl_sac"]
TASKS = [name for name in ginfile.fragments("Experiment.env") if "Gymnasium()" in ginfile.shipped()[name].read_text()]


def shipped(name):
    return registry.build(ginfile.load([name, *METHODS]).env)


def robot(name, env):
    """What the robot feels, from the simulator: the numbers that its state vector must hold, and no other."""
    qpos, qvel = env.physics()
    if name == "env/gym_pusher":
        return np.concatenate([qpos[:7], qvel[:7]])
    if name == "env/gym_kitchen":  # and noise, a hundredth of a range
        return np.concatenate([qpos[:9], qvel[:9]])
    if name == "env/gym_adroit_door":
        return qpos[1:28]
    data = env._env.unwrapped.data
    claws = data.body("rightclaw").xpos - data.body("leftclaw").xpos
    return np.append(data.body("hand").xpos, min(10 * np.linalg.norm(claws), 1))


def test_there_are_the_tasks_that_the_guide_names():
    assert {"env/gym_pusher", "env/gym_kitchen", "env/gym_adroit_door", "env/metaworld_reach"} <= set(TASKS)
    assert len({shipped(name).name for name in TASKS}) == len(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_task_repeats_itself_and_its_state_is_the_robot_alone(name, capfd):
    made = shipped(name)
    env, other = made.make_one(None), made.make_one(None)
    env.reset(seed=4)
    for action in np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32):
        observation, _, _, _, flags = env.step(action)
    noise = 0.02 if name == "env/gym_kitchen" else 1e-5
    np.testing.assert_allclose(observation["state"], robot(name, env), atol=noise)
    assert set(flags) == set(made.flags)
    other.reset(seed=9)
    other.step(action)
    other.set_state(env.get_state())
    np.testing.assert_array_equal(other.seen(), env.seen())
    assert "note" not in capfd.readouterr().err
    starts = [env.reset(seed=seed) and env.seen() for seed in (1, 2)]
    assert not np.array_equal(*starts), "every episode begins alike"


def test_meta_worlds_50_starts_are_the_same_everywhere():
    """Without an argument `seed` it draws them from numpy's global generator, and its reset hands no seed on."""
    made = Gymnasium(Gymnasium.Config(id="metaworld:Meta-World/MT1", kwargs=(("env_name", "reach-v3"),), horizon=500))
    one, two = (
        [tuple(env.reset(seed=i)[0]["state"][-3:]) for i in range(6)]
        for env in (made.make_one(None), made.make_one(None))
    )
    assert one == two
    assert len(set(one)) > 3


def test_tasks_of_one_id_in_one_process_are_drawn_each_from_its_own_model():
    request, pictures = FrameRequest(48, 48), {}
    alive = []
    for task in ("metaworld_drawer_open", "metaworld_button_press", "metaworld_drawer_open"):
        alive.append(shipped(f"env/{task}").make_one(request))
        frames = alive[-1].reset(seed=0)[0]["frames"]
        assert np.array_equal(pictures.setdefault(task, frames), frames)
    alone = pictures["metaworld_button_press"]
    del alive
    again = shipped("env/metaworld_button_press").make_one(request).reset(seed=0)[0]["frames"]
    np.testing.assert_array_equal(alone, again)
    assert (np.abs(alone.astype(int) - pictures["metaworld_drawer_open"]) > 20).mean() > 0.05
