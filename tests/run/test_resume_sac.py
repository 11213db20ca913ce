"""kill -9 of an agent with a replay memory, in the middle of an episode and after the ring wrapped, then
`rrl resume`: the same bits as a run that was never interrupted. Real pixels, an encoder that learns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.stores import prepared
from test_resume import (
    assert_same,
    children_are_gone,
    command,
    descendants,
    finished,
    kill,
    outcome,
    started,
)
from test_resume import run_folder as folder_of

from rrl.agents.sac import SAC
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.encoders.state import State
from rrl.envs.dmcontrol import DMControl
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.steps import Stepper
from rrl.run.saving import BEST_POLICY
from rrl.store import checkpoint

TOGETHER = ("Experiment.threads = 1", "Experiment.num_envs = 2", "Experiment.workers = 2")
SETTINGS = (
    *TOGETHER,
    "Experiment.log_every = 480",  # 30 steps of two environments: episodes of 70 go on after checkpoints
    "Experiment.eval_every = 960",
    "Experiment.evaluators = (@EpisodeReturn(), @end/EpisodeReturn())",
    "DMControl.look = 'fast'",
    "DMControl.horizon = 70",
    "EpisodeReturn.episodes = 1",
    "end/EpisodeReturn.when = 'end'",
    "end/EpisodeReturn.episodes = 1",
    "CURL.replay = 200",
    "CURL.init_steps = 40",
    "CURL.batch = 6",
    "CURL.hidden = (32, 32)",
    "ContrastiveCNN.render = 24",
    "ContrastiveCNN.crop = 20",
    "ContrastiveCNN.filters = 8",
)


RLPD_SETTINGS = (
    *TOGETHER,
    "Experiment.log_every = 60",  # 30 steps of two environments again
    "Experiment.eval_every = 120",
    "Experiment.evaluators = (@SuccessRate(), @final/SuccessRate())",
    "Adroit.horizon = 70",
    "SuccessRate.episodes = 1",
    "final/SuccessRate.episodes = 1",
    "RLPD.replay = 200",
    "RLPD.init_steps = 80",
    "RLPD.critics_first = 5",
    "RLPD.batch = 8",
    "RLPD.hidden = (16, 16)",
    "RLPD.policy_hidden = (16,)",
    "RLPD.bc_epochs = 1",
    "RLPD.stack = 2",
    "RLPD.overlap = True",
)
"""A warm-up by a clone that goes on over a checkpoint, demonstrations that no checkpoint holds, sums over steps."""
RUNS = {"dmc_cartpole_swingup_curl": SETTINGS, "adroit_door_rlpd_state": RLPD_SETTINGS}


def begin(name, iterations):
    settings = (f"Experiment.iterations = {iterations}", *RUNS[name])
    sets = [part for setting in settings for part in ("--set", setting)]
    return command("run", name, *sets)


@pytest.mark.parametrize(
    "name", [pytest.param("dmc_cartpole_swingup_curl", marks=pytest.mark.slow), "adroit_door_rlpd_state"]
)
def test_killed_in_an_episode_after_the_ring_wrapped(name, tmp_path):
    (whole := tmp_path / "whole").mkdir()
    (cut := tmp_path / "cut").mkdir()
    finished(begin(name, 10), prepared(whole))
    reference = outcome(whole)
    assert any("encoder/loss" in metrics or "critics/gap" in metrics for _, metrics in reference[1])
    assert best_is_the_best_evaluated(whole)

    def wrapped():
        files = list((cut / "runs").glob("*/metrics.jsonl"))
        return bool(files) and files[0].read_text().count("\n") > 5  # 5 iterations: 150 steps, two episodes and 10

    process = started(cut, begin(name, 8), wrapped)
    workers = descendants(process.pid)
    assert process.poll() is None, "the run ended before it was killed"
    kill(process)
    assert children_are_gone(workers)
    finished(command("resume", str(folder_of(cut))), cut)

    # Lengthened, again in the middle of an episode. Both runs are evaluated every two iterations.
    finished(command("resume", str(folder_of(cut)), "--iterations", "10"), cut)
    assert_same(ended_once(outcome(cut)), ended_once(reference))


def ended_once(outcome):
    """Without final evaluations but the last: a lengthened run has two."""
    tensors, rows = outcome
    return tensors, [row for row in rows if not {"final/return", "final/success"} & row[1].keys() or row is rows[-1]]


def best_is_the_best_evaluated(root):
    rows = [metrics for _, metrics in outcome(root)[1] if "eval/return" in metrics]
    ranking = "eval/success" if "eval/success" in rows[0] else "eval/return"
    assert len(rows) > 2
    first_best = max(rows, key=lambda metrics: metrics[ranking])  # the first of equals
    kept = checkpoint.load_file(folder_of(root) / BEST_POLICY)[1]["iteration"]
    return kept == first_best.get("iteration", 0)


def stepper(num_envs, workers):
    factory = DMControl(DMControl.Config(domain="cartpole", task="swingup", state="task"))
    envs = WorkerVectorEnv(factory, num_envs, None, workers)
    config, encoder = SAC.Config(replay=100, init_steps=1000, hidden=(8,)), State(State.Config(), cameras=1)
    agent = SAC(config, encoder=encoder, state_dim=5, action_dim=1, seed=0, inference=Inference())
    return Stepper(envs, agent.stack, 0), agent


def test_episodes_follow_their_numbers_whatever_the_workers():
    found = []
    for workers in (0, 2):
        a, agent = stepper(3, workers)
        steps = [a.step(agent) for _ in range(130)]
        found.append([np.concatenate([getattr(s, name) for s in steps]) for name in ("obs", "rewards", "t")])
        assert [each.length for each in a.ended] == [125] * 3
        for slot, each in enumerate(a.ended):
            assert each.value == pytest.approx(sum(s.rewards[slot] for s in steps[:125]))
        for before, after in pairwise(steps):
            going_on = ~before.truncated
            assert np.array_equal(before.final_obs[going_on], after.obs[going_on])
        a.envs.close()
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_an_evaluation_in_between_changes_nothing():
    (a, agent), (b, _) = stepper(2, 0), stepper(2, 0)
    for i in range(40):
        if i == 20:
            with b.paused():
                b.envs.reset(seed=[7, 8])
                b.envs.step(np.ones((2, 1), np.float32))
        one, other = a.step(agent), b.step(agent)
        assert np.array_equal(one.final_obs, other.final_obs)
        assert np.array_equal(one.rewards, other.rewards)


def test_the_shipped_parameter_sets_are_the_published_ones():
    """pytorch_sac's, RRL_SAC's (the paper's table 3), RAD's and CURL's, SAC+AE's; but for SAC+AE's memory
    of 1M pictures, which is 21 GB."""
    common = {"gamma": "0.99", "init_alpha": "0.1", "alpha_lr": "0.0001", "target_every": "2"}
    pixels = common | {"init_steps": "1000", "batch": "128", "actor_every": "2", "critic_tau": "0.01"}
    pixels |= {"actor_lr": "0.001", "critic_lr": "0.001", "alpha_beta": "0.5", "log_std_min": "-10.0"}
    pixels |= {"replay": "100000", "encoder_tau": "0.05", "log_prob": "clipped"}
    state = common | {"replay": "1000000", "init_steps": "5000", "batch": "1024", "critic_tau": "0.005"}
    state |= {"actor_lr": "0.0001", "critic_lr": "0.0001", "actor_every": "1", "log_std_min": "-5.0"}
    expected = {
        "state_sac": state,
        "rrl_sac_mobilenetv2": pixels | {"stack": "3"},
        "rad": pixels | {"encoder_loss": "never"},
        "curl": pixels | {"encoder_loss": "always"},
        "sac_ae": pixels | {"catch_up": "True"},
    }
    for name, settings in expected.items():
        flat = ginfile.flatten(ginfile.load(f"dmc_cartpole_swingup_{name}"))
        found = {key: flat[f"agent.{key}"] for key in settings}
        assert found == settings, name
        assert (flat["env.camera"], flat["num_envs"]) == ("0", "1")
