"""A privileged state: critics see it and nothing else, policies all but it."""

import numpy as np
import pytest
import torch
from helpers.adroit import actions, make
from helpers.rlpd_agents import small
from helpers.sac_agents import ACTION, STATE, Colours, rollout_of, shaken

from rrl import load_policy
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.envs.adroit import Adroit
from rrl.registry import UserError
from rrl.rollout.data import Obs
from rrl.run import policies
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve

HIDDEN = 2
"""Numbers at the state's end for critics alone."""
SETTINGS = (
    {},
    {"principal": 2, "standardise": True},
    {"trunk": 2, "stack": 2},
    {"principal": 2, "views": 2},
    {"standardise": True, "encoder": None},
)


def agent_of(settings):
    given = {"encoder": Colours(), "reference": "correct", "init_steps": 0} | settings
    agent = shaken(small(privileged=HIDDEN, **given))
    rng = np.random.default_rng(3)
    shown, final = (agent.observe_demo(seen(agent, count, rng)) for count in (10, 2))
    agent.warm_start(rollout_of(shown, final, [5, 5], rng=rng))
    return agent


def seen(agent, count, rng):
    """Observations with random pictures, where the agent sees any."""
    frames = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8) if agent.feature_dim else None
    return Obs(frames, rng.standard_normal((count, STATE)).astype(np.float32))


def rows(agent):
    """What acting gets of six observations, [6, row]."""
    with agent.acting():
        return agent.one_view(agent.observe(seen(agent, 6, np.random.default_rng(5))))


@pytest.mark.parametrize("settings", SETTINGS)
def test_actions_hang_on_all_but_the_privileged_state(settings):
    agent = agent_of(settings)
    obs = rows(agent)
    first, end = agent.private
    assert end - first == HIDDEN < STATE

    def acts(now):
        return agent.act(np.concatenate([now] * agent.stack, axis=1), None)

    before = acts(obs)
    other = obs.copy()
    other[:, first:end] += 7
    np.testing.assert_array_equal(acts(other), before)
    for column in range(agent.row):
        if not first <= column < end:
            moved = obs.copy()
            moved[:, column] += 0.5
            assert np.abs(acts(moved) - before).max() > 0, column


@pytest.mark.parametrize("settings", SETTINGS)
def test_values_hang_on_the_privileged_state_alone(settings):
    agent = agent_of(settings)
    obs = rows(agent)
    critic, first, end = agent.online["critic"], *agent.private
    chosen = torch.rand(len(obs), ACTION)

    def value(now):
        return critic(torch.as_tensor(np.concatenate([now] * agent.stack, axis=1)), chosen)

    other = obs.copy()
    other[:, :first] += 3
    other[:, end:] += 3
    torch.testing.assert_close(value(other), value(obs), rtol=0, atol=0)
    for column in range(first, end):
        moved = obs.copy()
        moved[:, column] += 0.5
        assert (value(moved) - value(obs)).abs().max() > 0
    assert critic.weights[0].shape[1] == agent.stack * HIDDEN + ACTION


@pytest.mark.parametrize(("state", "own"), [("joints", 24), ("none", 0)])
def test_adroits_state_ends_with_the_tasks(state, own):
    env, task = make("door", state=state, privileged=True), make("door", state="task")
    env.reset(seed=0), task.reset(seed=0)
    for action in actions(env, 3):
        seen, whole = env.step(action)[0]["state"], task.step(action)[0]["state"]
        np.testing.assert_array_equal(seen[own:], whole)
    factory = Adroit(Adroit.Config(task="door", state=state, privileged=True))
    assert factory.privileged == 39 and len(seen) == own + 39
    assert factory.facts()["privileged"] == "True"
    assert Adroit(Adroit.Config(task="door")).privileged == 0


def test_who_cannot_use_it_says_so():
    privileged = "Adroit.privileged = True"
    with pytest.raises(
        UserError,
        match=r"DAPG has neither critics nor a teacher that see other .*\n.*\n.*take @DAgger\(\), @RLPD\(\)",
    ):
        ginfile.load("adroit_door_mobilenetv2", [privileged])
    with pytest.raises(UserError, match="state 'task' shows the task's state to policies too"):
        ginfile.load("adroit_door_rlpd_state", [privileged])
    no_clone = ["RLPD.reference = 'none'", "RLPD.warm_up = 'random'", "RLPD.correction_weight = 0.0"]
    learns = ["Experiment.encoder = @PixelCNN()", "RLPD.trunk = None", "RLPD.standardise = False", *no_clone]
    with pytest.raises(UserError, match="nothing would train PixelCNN"):
        ginfile.load("adroit_door_rlpd_mobilenetv2", [privileged, *learns])


def test_a_policy_acts_without_it(tmp_path):
    """Its file takes states as they are where it is used, with the same actions."""
    sets = [
        "Adroit.privileged = True",
        "Adroit.state = 'joints'",
        "State.blind = True",
        "Experiment.num_envs = 1",
        "Experiment.workers = 0",
    ]
    run = Experiment(resolve(ginfile.load("adroit_door_rlpd_state", [*sets, "RLPD.hidden = (8, 8)"])))
    envs = run.make_envs()
    agent = run.make_agent(run.encoder, envs, Inference(), 0)
    shown, final = np.zeros((40, 63), np.float32), np.zeros((1, 63), np.float32)
    agent.warm_start(rollout_of(shown, final, [40], rng=np.random.default_rng(1), m=28))
    path = tmp_path / "policy.safetensors"
    policies.save(path, agent, run.config, {"state_dim": envs.state_dim, "action_dim": envs.action_dim})
    policy = load_policy(path)
    state = np.random.default_rng(0).random((3, 63), np.float32)
    np.testing.assert_array_equal(policy.act({"state": state[:, :24]}), policy.act({"state": state}))
    with pytest.raises(UserError, match="63 numbers; got 25"):
        policy.act({"state": state[:, :25]})
