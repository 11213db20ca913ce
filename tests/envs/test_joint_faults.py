"""Kinds of joint noise, joints that are stuck or dead, and readings that come late."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest
from helpers.adroit import actions, make

from rrl.config import ginfile
from rrl.demos import DemoSet
from rrl.demos.replay import NoPolicy
from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import JOINTS, TASKS
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Episode, Stream, episodes
from rrl.rollout.episodes import Collector

FAULTS = {
    "joint_noise": 0.02,
    "joint_noise_kind": "uniform",
    "stuck_joints": ("FFJ3",),
    "dead_joints": ("WRJ1", "THJ4"),
    "joint_delay": 3,
}
FFJ3, DEAD = JOINTS.index("FFJ3"), [JOINTS.index("WRJ1"), JOINTS.index("THJ4")]


def factory(**settings):
    return Adroit(Adroit.Config(task="door", **settings))


def readings(env, todo, seed=0, initial=None):
    """The state vector of each observation [len(todo) + 1, p], and the 24 joint angles themselves."""
    options = None if initial is None else {"initial": initial}
    seen, angles = [env.reset(seed=seed, options=options)[0]["state"]], [env.physics()[0][4:28]]
    for action in todo:
        seen.append(env.step(action)[0]["state"])
        angles.append(env.physics()[0][4:28])
    return np.array(seen), np.array(angles, np.float32)


def bent():
    """A start with every joint of the hand away from 0."""
    env = make("door")
    env.reset(seed=0)
    initial = env.initial()
    initial["qpos"][4:28] = np.linspace(0.1, 0.5, 24)
    return initial


@pytest.mark.parametrize("task", TASKS)
def test_the_joints_have_the_models_names(task):
    env = make(task)
    first = TASKS[task].joints.start
    assert [env.unwrapped._model.joint(first + i).name for i in range(24)] == list(JOINTS)


@pytest.mark.parametrize("kind", ["multiplicative", "uniform"])
def test_noise_of_another_kind_has_its_own_size(kind):
    env, count = make("door", joint_noise=0.02, joint_noise_kind=kind), 2000
    env.reset(seed=1, options={"initial": bent()})
    qpos, qvel = env.physics()
    noise = np.stack([env.show(qpos, qvel)["state"] for _ in range(count)]) - qpos[4:28]
    ranges = np.array([np.ptp(env.unwrapped._model.joint(name).range) for name in JOINTS])
    std = 0.02 * np.abs(qpos[4:28]) if kind == "multiplicative" else 0.02 * ranges / np.sqrt(3)
    np.testing.assert_allclose(noise.std(axis=0), std, rtol=5 / np.sqrt(2 * count))
    assert (np.abs(noise.mean(axis=0)) < 5 * std / np.sqrt(count)).all()
    largest = np.abs(noise).max(axis=0) / (0.02 * ranges)
    if kind == "uniform":
        assert (largest > 0.99).all() and (largest < 1 + 1e-4).all()


def test_an_angle_of_0_has_no_multiplicative_noise():
    env = make("door", joint_noise=1.0, joint_noise_kind="multiplicative")
    assert not env.reset(seed=0)[0]["state"].any()


def test_stuck_and_dead_joints_tell_nothing_and_the_others_the_truth():
    env = make("door", stuck_joints=("FFJ3",), dead_joints=("WRJ1", "THJ4"))
    todo = actions(env, 8)
    for initial in (None, bent()):  # the second episode has a first reading of its own
        seen, angles = readings(env, todo, initial=initial)
        assert (np.abs(np.diff(angles[:, [FFJ3, *DEAD]], axis=0)).max(axis=0) > 1e-3).all()  # they move
        assert (seen[:, FFJ3] == angles[0, FFJ3]).all()
        assert not seen[:, DEAD].any()
        rest = [i for i in range(24) if i not in (FFJ3, *DEAD)]
        np.testing.assert_array_equal(seen[:, rest], angles[:, rest])
    assert angles[0, FFJ3] > 0.1


def test_noise_does_not_move_a_stuck_or_a_dead_joint():
    env = make("door", joint_noise=0.1, stuck_joints=("FFJ3",), dead_joints=("WRJ1",))
    seen, _ = readings(env, actions(env, 5))
    assert len(set(seen[:, FFJ3])) == 1 and seen[0, FFJ3] != 0  # its first, noisy reading
    assert not seen[:, JOINTS.index("WRJ1")].any()
    assert len(set(seen[:, FFJ3 + 1])) == 6


def test_delayed_readings_are_those_of_steps_ago():
    env = make("door", joint_delay=3)
    for seed in (0, 1):  # nothing is left of the episode before
        seen, angles = readings(env, actions(env, 8, seed), seed, bent() if seed else None)
        np.testing.assert_array_equal(seen[3:], angles[:-3])
        assert (seen[:3] == angles[0]).all()


def test_the_simulation_knows_nothing_of_faults():
    clean, faulty = make("door"), make("door", **FAULTS)
    todo = actions(clean, 5)
    assert (readings(clean, todo)[1] == readings(faulty, todo)[1]).all()
    (_, *one, _), (_, *other, _) = clean.step(todo[0]), faulty.step(todo[0])
    assert one == other


def test_faults_go_on_bit_for_bit():
    first, second = make("door", **FAULTS), make("door", **FAULTS)
    todo = actions(first, 12)
    seen, _ = readings(first, todo[:6], 8, bent())
    saved = first.get_state()
    readings(second, todo[:2], 9)
    np.testing.assert_array_equal(second.set_state(saved)["state"], seen[-1])
    for action in todo[6:]:
        np.testing.assert_array_equal(first.step(action)[0]["state"], second.step(action)[0]["state"])
    np.testing.assert_array_equal(first.reset(seed=10)[0]["state"], second.reset(seed=10)[0]["state"])


def test_states_saved_before_there_were_faults_go_on():
    env = make("door", joint_noise=0.02)
    env.reset(seed=0)
    assert {name for name in env.get_state() if not name.startswith(("initial", "last"))} == {
        "integration",
        "steps",
        "rng",
    }


def test_seeds_alone_decide_faulty_readings():
    """More episodes than environments: a slot forgets the episode before."""
    rng = np.random.default_rng(0)
    todo = [
        Episode(each.seed, actions=rng.uniform(-1, 1, (6, 28)).astype(np.float32))
        for each in episodes(4, seed=6, stream=Stream.EVAL)
    ]

    def observed(num_envs, workers):
        envs = WorkerVectorEnv(factory(horizon=6, **FAULTS), num_envs, None, workers)
        try:
            return Collector(envs).collect(NoPolicy(28), todo).obs
        finally:
            envs.close()

    np.testing.assert_array_equal(observed(1, 0), observed(3, 2))


@pytest.mark.parametrize("replay", ["actions", "states"])
def test_demonstrations_are_read_by_the_same_sensors(replay):
    def replayed(**settings):
        envs = WorkerVectorEnv(factory(**settings), 2, None, 0)
        chosen = DemoSet(DemoSet.Config(episodes=3, replay=replay), env=envs.factory)
        return chosen.replay(Collector(envs), NoPolicy(28))

    clean, late = replayed(), replayed(joint_delay=3, stuck_joints=("FFJ3",))
    np.testing.assert_array_equal(late.rewards, clean.rewards)
    rest = [i for i in range(24) if i != FFJ3]
    ends = [*clean.starts[1:], len(clean.obs)]
    for start, end in zip(clean.starts, ends, strict=True):
        ours, theirs = late.obs[start:end], clean.obs[start:end]
        np.testing.assert_array_equal(ours[3:, rest], theirs[:-3, rest])
        assert (ours[:3, rest] == theirs[0, rest]).all()
        assert (ours[:, FFJ3] == theirs[0, FFJ3]).all() and not (theirs[:, FFJ3] == theirs[0, FFJ3]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stuck_joints": ("ffj9",)}, r"no joint 'ffj9', only WRJ1, .*; did you mean 'FFJ3'\?"),
        ({"dead_joints": ("A_WRJ1",)}, r"no joint 'A_WRJ1', .*; did you mean 'WRJ1'\?"),
        ({"dead_joints": ("WRJ1", "WRJ1")}, "each joint once, stuck or dead; got WRJ1 twice"),
        ({"stuck_joints": ("WRJ1",), "dead_joints": ("WRJ1",)}, "each joint once, stuck or dead; got WRJ1 twice"),
        ({"state": "task", "stuck_joints": ("WRJ1",)}, "only in state 'joints'; state is 'task'"),
        ({"state": "none", "dead_joints": ("WRJ1",)}, "only in state 'joints'; state is 'none'"),
        ({"state": "none", "joint_delay": 1}, "only in state 'joints'; state is 'none'"),
        ({"joint_delay": -1}, "greater than or equal to 0"),
        ({"joint_noise_kind": "salt"}, "'gaussian', 'multiplicative' or 'uniform'"),
    ],
)
def test_faults_that_cannot_be_are_refused(settings, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        Adroit.Config(task="door", **settings)


def test_what_is_not_at_fault_is_not_told():
    """Keys of cached features, parameters and fingerprints are those of versions without faults."""
    config = Adroit.Config(task="door")
    known = {"task", "protocol", "reward", "look", "state", "joint_noise", "cameras", "horizon"}
    assert set(ginfile.flatten(config)) == known
    assert ginfile.dumps(config).count("\n") == len(known)
    assert not {*Adroit.Config.later} & factory().facts().keys()
    assert "joint_noise_kind" not in factory(joint_noise_kind="uniform").facts()  # of no noise


def test_what_is_at_fault_is_told():
    config = Adroit.Config(task="door", **FAULTS)
    assert ginfile.loads(ginfile.dumps(config), root="Adroit") == config
    facts = factory(**FAULTS).facts()
    told = {name: facts[name] for name in FAULTS}
    assert told == {
        "joint_noise": "0.02",
        "joint_noise_kind": "uniform",
        "stuck_joints": "FFJ3",
        "dead_joints": "WRJ1, THJ4",
        "joint_delay": "3",
    }


def test_faults_are_called_as_their_evaluation_calls_them():
    assert factory(**FAULTS).at_fault() == ["uniform noise 0.02", "stuck FFJ3", "dead WRJ1", "dead THJ4", "delay 3"]
    assert factory(joint_noise=0.1).at_fault() == ["gaussian noise 0.1"]
    assert factory(joint_noise_kind="uniform").at_fault() == factory().at_fault() == []  # of no noise
    assert factory(state="none").at_fault() == ["vision only"]
    assert factory(state="task").at_fault() == []
