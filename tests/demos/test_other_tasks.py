"""Demonstrations of tasks that commands don't know by name, and of tasks without a success test."""

import json

import numpy as np
import pytest
from helpers import point

from rrl.commands import demo_imports
from rrl.commands import demos as commands
from rrl.config import ginfile
from rrl.demos import sets
from rrl.encoders.base import Inference
from rrl.registry import UserError, build
from rrl.run import policies


def policy_file(path, config):
    """An untrained policy of this run."""
    sim = build(config.env).make_one(None)
    dims = {"state_dim": sim.observation_space["state"].shape[0], "action_dim": sim.action_space.shape[0]}
    sim.close()
    encoder = build(config.encoder, cameras=1)
    agent = build(config.agent, encoder=encoder, seed=0, inference=Inference(), **dims)
    policies.save(path, agent, config, {**dims, **encoder.facts()})
    return path


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """Two episodes of a policy of a task that has a return and no success."""
    pytest.importorskip("dm_control")
    folder, lines = tmp_path_factory.mktemp("cartpole"), []
    config = ginfile.load("dmc_cartpole_swingup_state_sac", ["DMControl.action_repeat = 25", "Experiment.threads = 1"])
    policy = policy_file(folder / "policy.safetensors", config)
    # Neither successes nor tries are counted: two episodes are run, and both are kept.
    commands.make(policy, folder / "set.npz", 2, seed=3, tries=None, say=lines.append)
    return folder / "set.npz", lines


def test_without_a_success_test_the_first_episodes_are_kept_and_their_returns_said(cartpole):
    path, lines = cartpole
    demos = sets.load(path)
    assert len(demos) == 2 and demos.lengths.tolist() == [40, 40]
    assert not demos.flags
    returns = demos.facts["returns"]
    assert len(returns) == 2 and demos.facts["episodes_tried"] == 2
    assert f"80 steps (the first ones; return {np.mean(returns):.1f} +- " in lines[-1]
    # what decides the replay is in the set, though it is not the task's usual
    assert build(sets.environment(demos.facts)).action_repeat == 25
    assert demos.pick([1]).facts["returns"] == returns[1:]
    assert demos.pick([1]).facts["seeds"] == demos.facts["seeds"][1:]


def test_without_a_success_test_the_return_is_verified(cartpole, tmp_path):
    path, _ = cartpole
    lines = []
    assert commands.verify(str(path), lines.append)
    assert lines[0].startswith("replay by actions: return ")
    assert "bit for bit" in lines[1]
    facts = json.loads(path.with_suffix(".json").read_text())
    (tmp_path / "better.npz").write_bytes(path.read_bytes())
    better = facts | {"returns": [2 * value for value in facts["returns"]]}
    (tmp_path / "better.json").write_text(json.dumps(better))
    assert not commands.verify(str(tmp_path / "better.npz"), lines.append)


def test_without_a_success_test_a_film_shows_the_return(cartpole, tmp_path, monkeypatch):
    iio = pytest.importorskip("imageio.v3")
    labels = []
    captioned = commands.captioned
    monkeypatch.setattr(commands, "captioned", lambda picture, label: labels.append(label) or captioned(picture, label))
    settings = {"look": "fast", "chosen": [1], "size": 64, "every": 20, "by": "actions"}
    commands.film(str(cartpole[0]), tmp_path / "a.mp4", print, cameras=["1"], **settings)
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (3, 64, 64, 3)
    value = sets.load(cartpole[0]).facts["returns"][1]
    assert labels[0] == f"dmc_cartpole_swingup  camera 1  look fast  episode 1: return {value:.1f} (by actions)"
    with pytest.raises(UserError, match="one camera, named by its number"):
        commands.film(str(cartpole[0]), tmp_path / "b.mp4", print, cameras=["top"], **settings)


def test_demonstrations_of_a_task_of_a_plugin(tmp_path):
    with point.registered():
        text = ginfile.dumps(ginfile.load("dmc_cartpole_swingup_state_sac"))
        others = [line for line in text.splitlines() if not line.startswith(("DMControl", "Experiment.env"))]
        config = ginfile.loads("\n".join([*others, "Experiment.env = @Point()", "Point.gain = 0.25"]))
        out, lines = tmp_path / "set.npz", []
        commands.make(policy_file(tmp_path / "p.safetensors", config), out, 2, seed=0, tries=None, say=lines.append)
        demos = sets.load(out)
        assert sets.environment(demos.facts) == config.env  # a setting without a default is known again
        assert commands.verify(str(out), lines.append)
        with pytest.raises(UserError, match="no setting 'look'"):
            commands.film(
                str(out), tmp_path / "a.mp4", print, cameras=[], look="fast", chosen=[0], size=64, every=1, by="states"
            )
    with pytest.raises(UserError, match=r"can't make the environment of toy_point again(.|\n)*Point"):
        commands.verify(str(out), lines.append)


def test_import_finds_any_registered_task(tmp_path):
    starts, actions = np.array([[0.5], [-0.25]]), np.full((2, 5, 1), 0.125)
    np.savez(tmp_path / "my_plain_point-v0.npz", actions=actions, init_qpos=starts, init_qvel=0 * starts)
    take = {"kind": None, "origin": "human"}
    with point.registered():
        lines = []
        for task, name in ((None, "a.npz"), ("plain_point", "b.npz"), ("toy_plain_point", "c.npz")):
            demo_imports.take_over(
                str(tmp_path / "my_plain_point-v0.npz"),
                tmp_path / name,
                lines.append,
                task=task,
                protocol=None,
                **take,
            )
            demos = sets.load(tmp_path / name)
            assert demos.facts["env"] == "toy_plain_point"
            assert np.allclose(demos.states(0)[0][:2, 0], [0.5, 0.5 + 0.5 * 0.125])
            assert np.allclose(demos.states(1)[0][0], -0.25)
        assert "2 episodes of 5 to 5 steps; return " in lines[-1]
        assert commands.verify(str(tmp_path / "a.npz"), lines.append)
        for task, protocol, message in (("line", None, "no environment has a task 'line'"), (None, "x", "protocol")):
            with pytest.raises(UserError, match=message):
                demo_imports.take_over(
                    str(tmp_path / "my_plain_point-v0.npz"), tmp_path / "d", print, task=task, protocol=protocol, **take
                )


def test_sets_of_earlier_versions_are_found_by_name_and_variant():
    facts = sets.load(sets.shipped()["adroit_door_paper"]).facts
    assert "settings" not in facts
    env = build(sets.with_objects(sets.environment(facts | {"protocol": "stock"})))
    assert (env.name, env.protocol, env.blind_state) == ("adroit_door", "stock", False)
    with pytest.raises(UserError, match="no environment nothing_here"):
        sets.environment(facts | {"env": "nothing_here"})
