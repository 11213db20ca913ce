"""Environments that commands find by the name of a task or by the facts of recorded episodes."""

import pytest
from helpers.point import Point

from rrl import registry
from rrl.envs.adroit import Adroit
from rrl.envs.any_gym import Gymnasium
from rrl.envs.base import EnvFactory, find_recorded, find_task, task_names
from rrl.envs.dmcontrol import PAPER, DMControl
from rrl.envs.mjrl import MJRL
from rrl.registry import UserError, build

CONFIGS = [
    *(Adroit.Config(task=task) for task in ("pen", "door", "hammer", "relocate")),
    Adroit.Config(task="pen", protocol="stock"),
    *(DMControl.Config(domain=domain, task=task) for domain, task in PAPER),
    *(MJRL.Config(task=task) for task in ("reacher", "peg_insertion")),
    Gymnasium.Config(id="Pusher-v5", kwargs=(("reward_near_weight", 0.7), ("frame_skip", 4)), horizon=50),
    Gymnasium.Config(id="gymnasium_robotics:AdroitHandDoor-v1", cameras=("fixed", "vil_camera"), success="success"),
    Gymnasium.Config(id="helpers.gym_tasks:helpers/Toy-v0", picture_key="picture", state_indices=(0, 2)),
    DMControl.Config(domain="walker", task="run", action_repeat=2),
    DMControl.Config(domain="cartpole", task="swingup", action_repeat=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: build(config).name)
def test_recorded_episodes_find_their_environment(config):
    facts = build(config).facts()
    again = build(find_recorded(facts))
    assert again.facts() == facts
    told = build(find_recorded(facts, state="none")).facts()
    assert told == {**facts, "state": "none"}


def test_a_task_is_found_by_its_name_and_label():
    door = Adroit.Config(task="door", protocol="stock", state="task")
    for name in ("door", "adroit_door"):
        assert find_task(name, protocol="stock", state="task") == door
    walker = DMControl.Config(domain="walker", task="walk")
    for name in ("dmc_walker_walk", "walker_walk", "walker walk"):
        assert find_task(name) == walker
    cup = DMControl.Config(domain="ball_in_cup", task="catch", state="none")
    assert find_task("ball in cup catch", state="none") == cup
    assert find_task("hopper_hop", action_repeat=4).action_repeat == 4
    assert find_task("Pusher-v5", look="fast") == Gymnasium.Config(id="Pusher-v5", look="fast")
    assert Adroit.of_task("walker_walk") is None
    assert EnvFactory.of_task.__func__ is DMControl.of_task.__func__  # what a new environment gets for nothing


def test_all_tasks_have_names():
    names = task_names()
    assert {"pen", "door", "hammer", "relocate", "hopper_hop", *map("_".join, PAPER)} <= set(names)
    assert "quadruped_escape" not in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("dor", {}, r"no environment has a task 'dor'; did you mean 'door'\? \(one of pen, door, hammer"),
        ("door", {"protocl": "paper"}, "Adroit has no setting 'protocl'; it takes task, protocol, reward, look"),
        ("door", {"protocol": "x"}, "Adroit.protocol must be 'paper' or 'stock'; got 'x'"),
        ("walker_walk", {"protocol": "paper"}, "DMControl has no setting 'protocol'; it takes domain, task, action_re"),
        ("Pushr-v5", {}, "gymnasium knows no environment 'Pushr-v5'\n  did you mean 'Pusher-v5'"),
        ("hopper_hop", {}, "action_repeat: .*must be set for hopper hop"),
    ],
)
def test_what_is_wrong_is_told(task, settings, message):
    with pytest.raises(UserError, match=message):
        find_task(task, **settings)


def test_facts_of_another_world_are_told():
    with pytest.raises(UserError, match="this version of rrl has no environment mjrl_swimmer"):
        find_recorded({"env": "mjrl_swimmer"})


def test_a_task_is_filmed_through_the_cameras_that_a_user_names():
    door, walker = find_task("door", state="task"), find_task("walker_walk", state="none")
    assert door.filmed((), "fast") == Adroit.Config(task="door", state="task", look="fast")
    assert door.filmed(("top", "vil_camera"), "default").cameras == ("top", "vil_camera")
    assert walker.filmed(("1",), "balanced") == DMControl.Config(
        domain="walker", task="walk", state="none", camera=1, look="balanced"
    )
    assert walker.filmed((), "default") == walker
    for config, cameras, look, message in (
        (door, ("topp",), "fast", "did you mean 'top'"),
        (door, (), "pretty", "Adroit.look must be 'default', 'balanced' or 'fast'; got 'pretty'"),
        (walker, ("side",), "fast", "walker walk is filmed by one camera, named by its number; got side"),
        (walker, ("0", "1"), "fast", "got 0, 1"),
    ):
        with pytest.raises(UserError, match=message):
            config.filmed(cameras, look)


def test_another_package_takes_no_task_from_ours(monkeypatch):
    """Whatever it is called: `Aardvark` comes before `Adroit`, and its `aardvark_door` is a `door` too."""
    registry.names()
    monkeypatch.setattr(registry, "_components", dict(registry._components))

    @registry.register
    class Aardvark(Point):
        class Config(Point.Config):
            gain: float = 0.5

        name = "aardvark_door"

    assert find_task("aardvark_door") == Aardvark.Config()
    assert find_task("door") == Adroit.Config(task="door")


def test_adroits_tasks_are_found_without_dm_control(monkeypatch):
    monkeypatch.delattr(DMControl, "tasks")  # which would import it
    monkeypatch.setattr(EnvFactory, "tasks", None)
    assert find_task("door") == Adroit.Config(task="door")
