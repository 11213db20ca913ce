"""DAgger: the teacher's actions at the policy's own steps, all of them kept, resumed bit for bit, and used without."""

import shutil

import numpy as np
import pytest
import torch
from helpers.measured import lasting
from helpers.stores import prepared

from rrl import load_policy
from rrl.agents import DAgger
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.encoders.state import State
from rrl.registry import UserError
from rrl.rollout.data import Rollout
from rrl.run import loop, process, teaching
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.store import checkpoint, results, shipped

PUBLIC, HIDDEN, ACTION = 3, 2, 2
GIN = """
include 'env/adroit_door.gin'
include 'encoder/state.gin'
include 'method/dagger.gin'
State.blind = True
Adroit.privileged = True
Adroit.horizon = 30
DAgger.teacher = {teacher!r}
DAgger.trajectories = 3
DAgger.updates_per_step = 0.1
DAgger.bc_epochs = 1
DAgger.policy_hidden = (8, 8)
DAgger.exploration_std = 0.1
Experiment.evaluators = ()
Experiment.iterations = 3
Experiment.num_envs = 3
Experiment.workers = 0
Experiment.threads = 1
"""
RNG = np.random.default_rng(0)
WEIGHTS = RNG.uniform(-1, 1, (HIDDEN, ACTION)).astype(np.float32)


def wanted(states):
    """A teacher, some of whose actions are out of bounds."""
    return states @ WEIGHTS


def made(**settings):
    config = DAgger.Config(**{"teacher": "adroit_door_expert", "policy_hidden": (32,), "bc_epochs": 1} | settings)
    return DAgger(
        config,
        encoder=State(State.Config(), cameras=0),
        state_dim=PUBLIC + HIDDEN,
        action_dim=ACTION,
        seed=0,
        inference=Inference(),
        privileged=HIDDEN,
    )


def rollout(episodes, steps=20, seed=0):
    """Episodes in which what the policy sees tells what the teacher sees."""
    rng = np.random.default_rng(seed)
    count = episodes * steps

    def rows(number):
        hidden = rng.standard_normal((number, HIDDEN))
        return np.concatenate((hidden * 2 + 1, rng.standard_normal((number, 1)), hidden), axis=1).astype(np.float32)

    obs, t = rows(count), np.tile(np.arange(steps, dtype=np.int32), episodes)
    return Rollout(
        obs=obs,
        actions=rng.uniform(-1, 1, (count, ACTION)).astype(np.float32),
        rewards=np.zeros(count),
        flags={},
        episode=np.repeat(np.arange(episodes, dtype=np.int32), steps),
        t=t,
        terminated=np.zeros(count, bool),
        truncated=t == steps - 1,
        final_obs=rows(episodes),
    )


def test_the_policy_comes_to_do_what_the_teacher_does():
    agent = made(trajectories=4, updates_per_step=5.0, lr=3e-3, input_noise=0.0)
    demos = rollout(3)
    demos.actions[:] = wanted(demos.obs[:, PUBLIC:]).clip(-1, 1)
    agent.warm_start(demos)
    with pytest.raises(UserError, match="DAgger has nobody to learn from"):
        agent.update(rollout(4, seed=1))
    agent.teacher = wanted
    told = [agent.update(rollout(4, seed=seed)) for seed in (1, 2, 3)]
    assert told[2]["dagger/loss"] < told[0]["dagger/loss"] / 2
    assert [each["dagger/steps"] for each in told] == [4 * 21, 8 * 21, 12 * 21]  # each episode's last observation too
    new = rollout(4, seed=9)
    new.actions[:] = agent.act(new.obs, None)
    expected = wanted(new.obs[:, PUBLIC:]).clip(-1, 1)
    assert np.abs(expected).max() == 1 and np.square(new.actions - expected).mean() < 0.01
    assert agent.update(new)["dagger/error"] == pytest.approx(np.square(new.actions.clip(-1, 1) - expected).mean())


def test_what_is_kept_are_own_steps_with_the_teachers_actions():
    agent = made(trajectories=2, updates_per_step=0.01, batch=4_000)
    demos, own = rollout(3), rollout(2, seed=1)
    agent.warm_start(demos)
    agent.teacher = wanted
    agent.update(own)
    x, actions = agent.draw()
    assert x.shape == (4_000, PUBLIC) and actions.shape == (4_000, ACTION)
    both = np.concatenate((demos.obs, own.obs))[:, :PUBLIC]
    inputs = agent.policy.standardise(torch.as_tensor(both)).detach()
    targets = torch.as_tensor(np.concatenate((demos.actions, wanted(own.obs[:, PUBLIC:]).clip(-1, 1))))
    nearest = torch.cdist(x, inputs).argmin(1)
    torch.testing.assert_close(x, inputs[nearest], atol=5e-3, rtol=0)  # float16
    torch.testing.assert_close(actions, targets[nearest].float())
    share = (nearest < len(demos.obs)).float().mean().item()
    assert abs(share - 60 / (60 + 42)) < 0.03
    assert set(nearest.tolist()) == set(range(len(both)))


def test_no_action_hangs_on_the_teachers_state():
    agent = made()
    agent.warm_start(rollout(3))
    obs, other = rollout(1).obs, rollout(1).obs
    other[:, PUBLIC:] += 7
    np.testing.assert_array_equal(agent.act(obs, None), agent.act(other, None))
    noise = np.ones((len(obs), ACTION), np.float32)
    np.testing.assert_array_equal(agent.act(obs, noise), agent.act(obs, None))
    noisy = made(exploration_std=0.25)
    noisy.load_policy_state(agent.policy_state())
    np.testing.assert_allclose(noisy.act(obs, noise), agent.act(obs, None) + 0.25)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    runs = {}
    iterate = loop.Loop.iterate

    def twice(self):
        if self.iteration == 2:
            raise loop.BudgetOver
        iterate(self)

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(prepared(tmp_path / name))
        shutil.copy(shipped.find("adroit_door_expert"), "teacher.safetensors")
        (tmp_path / name / "run.gin").write_text(GIN.format(teacher="teacher"))
        if name == "cut":
            monkeypatch.setattr(loop.Loop, "iterate", twice)
        assert process.start("run.gin", [], None, 1e6) == 0
        (path,) = (tmp_path / name).glob("runs/*/run.json")
        runs[name] = path.parent
    monkeypatch.setattr(loop.Loop, "iterate", iterate)
    assert checkpoint.load_file(runs["cut"] / "checkpoint.safetensors")[1]["iteration"] == 2
    (tmp_path / "cut" / "teacher.safetensors").rename("moved")
    shutil.copy(shipped.find("adroit_hammer_expert"), "teacher.safetensors")
    with pytest.raises(UserError, match=r"this run began with teacher \w+ \(now \w+\)"):
        process.resume(str(runs["cut"]))
    (tmp_path / "cut" / "moved").rename("teacher.safetensors")
    assert process.resume(str(runs["cut"])) == 0
    rows = [[lasting(row.metrics) for row in results.read(run).rows] for run in runs.values()]
    assert rows[0] == rows[1] and len(rows[0]) == 4
    whole, cut = (checkpoint.load_file(run / "checkpoint.safetensors")[0] for run in runs.values())
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)

    # Who uses the policy needs no teacher.
    (tmp_path / "cut" / "teacher.safetensors").unlink()
    policy = load_policy(runs["cut"])
    state = np.zeros(24, np.float32)
    np.testing.assert_array_equal(
        policy.act({"state": state}), policy.act({"state": np.concatenate((state, np.ones(39, np.float32)))})
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["DAgger.teacher = 'adroit_pen_expert'"],
            r"of adroit_pen with .*; this run's environment is adroit_door",
        ),
        (["DAgger.teacher = 'adroit_door_mobilenetv2'"], "sees pictures; a teacher sees the task's state alone"),
        (["Adroit.privileged = False"], "DAgger's teacher sees the task's state, but the environment doesn't tell it"),
        (["DAgger.teacher = 'nobody'"], r"(?s)nobody.*runs write policy.safetensors; a shipped policy is named"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_made(tmp_path, monkeypatch, settings, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.gin").write_text(GIN.format(teacher="adroit_door_expert"))
    with pytest.raises(UserError, match=said):
        teaching.check(Experiment(resolve(ginfile.load("run.gin", settings))))
