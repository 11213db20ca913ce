"""PPO as a plugin of one file: what a newcomer's agent must be able to do without a line changed elsewhere."""

import json
import re

import numpy as np
import pytest
import torch
from helpers.measured import lasting
from helpers.plugins import install
from helpers.stores import prepared
from typer.testing import CliRunner

import rrl
from rrl import cli
from rrl.encoders.base import Inference
from rrl.encoders.state import State
from rrl.registry import get
from rrl.rollout.data import Rollout
from rrl.run import loop, process
from rrl.store import checkpoint, results

GIN = """
Experiment.env = @DMControl()
Experiment.encoder = @State()
Experiment.agent = @PPO()
Experiment.evaluators = (@EpisodeReturn(),)
Experiment.num_envs = {envs}
Experiment.workers = 0
Experiment.threads = 1
Experiment.iterations = {iterations}
Experiment.log_every = {log_every}
Experiment.eval_every = 1_000_000
DMControl.domain = 'cartpole'
DMControl.task = 'swingup'
"""
TINY = """
DMControl.horizon = 30
EpisodeReturn.episodes = 2
PPO.steps = 64
PPO.epochs = 2
PPO.lr = 1e-2
PPO.hidden = (8, 8)
"""
ROUND = 64 * 2 * 8  # environment steps of an update: 64 of two environments, 8 for each of the agent's


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, with the plugin installed and a tiny run's gin file."""
    install(monkeypatch, tmp_path / "site", "plugins.ppo")
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.gin").write_text(GIN.format(envs=2, iterations=3, log_every=2 * ROUND) + TINY)
    monkeypatch.chdir(prepared(tmp_path))
    return tmp_path


def call(*arguments):
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def run_folder(root):
    (path,) = root.glob("runs/*/run.json")
    return path.parent


def test_it_is_listed_described_and_checked(here):
    assert "PPO" in call("list", "agent")
    assert "how far the ratio of likelihoods may go from 1" in " ".join(call("describe", "PPO").split())
    assert "PPO.steps = 64" in call("check", "tiny.gin")


def test_a_sweeps_estimate_knows_its_steps(here):
    planned = call("sweep", "tiny.gin", "--seeds", "0,1", "--dry-run")
    assert "could not be measured" not in planned
    assert len(re.findall(rf"\b3 +{3 * 2 * ROUND:,} ", planned)) == 2  # updates and steps of each run


def test_it_trains_reports_evaluates_and_exports(here):
    assert process.start("tiny.gin", [], None, None) == 0
    run = results.read(run_folder(here))
    rows = [row.metrics for row in run.rows if "iteration" in row.metrics]
    assert [row["iteration"] for row in rows] == [1, 2, 3] and run.steps == 3 * 2 * ROUND
    assert all(np.isfinite(row["ppo/kl"]) and "eval/return" not in row for row in rows[:-1])
    # Updated after 64 steps of both environments: two rounds of them per iteration.
    assert checkpoint.load_file(run.folder / "checkpoint.safetensors")[1]["agent"]["updates"] == 6

    call("report", run.run_id, "--out", "report.html")
    assert "PPO" in (here / "report.html").read_text()
    call("eval", run.run_id, "--json", "eval.json")
    assert json.loads((here / "eval.json").read_text())["return"] == rows[-1]["eval/return"]
    call("eval", run.run_id, "--episodes", "3", "--json", "more.json")
    assert json.loads((here / "more.json").read_text())["episodes_sampled"] == 3
    call("export", run.run_id, "--policy", "policy.safetensors")
    call("export", run.run_id, "--policy", "half.safetensors", "--half")
    kinds = {name: t.dtype for name, t in checkpoint.load_file(here / "half.safetensors")[0].items()}
    assert kinds["policy.mlp.0.weight"] == torch.float16 and kinds["policy.in_scale"] == torch.float32
    policy = rrl.load_policy("policy.safetensors")
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    action = policy.act(obs)
    assert action.shape == (1,) and abs(rrl.load_policy("half.safetensors").act(obs) - action) < 1e-2
    env.close()


def test_an_interrupted_run_goes_on_bit_for_bit(here, monkeypatch):
    for name in ("whole", "cut"):
        (here / name).mkdir()
        prepared(here / name)
    source = str(here / "tiny.gin")
    iterate = loop.Loop.iterate

    def twice(self):
        """Then the budget is over."""
        if self.iteration == 2:
            raise loop.BudgetOver
        iterate(self)

    with monkeypatch.context() as patch:
        patch.chdir(here / "whole")
        assert process.start(source, [], None, None) == 0
        patch.chdir(here / "cut")
        patch.setattr(loop.Loop, "iterate", twice)
        assert process.start(source, [], None, 1e6) == 0
        patch.setattr(loop.Loop, "iterate", iterate)
        folder = run_folder(here / "cut")
        assert checkpoint.load_file(folder / "checkpoint.safetensors")[1]["iteration"] == 2
        assert process.resume(str(folder)) == 0
    runs = [results.read(run_folder(here / name)) for name in ("whole", "cut")]
    curves = [[lasting(row.metrics) for row in r.rows] for r in runs]
    assert curves[0] == curves[1] and len(curves[0]) == 4
    whole, cut = (checkpoint.load_file(run.folder / "checkpoint.safetensors")[0] for run in runs)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def make(**config):
    cls = get("PPO")
    return cls(
        cls.Config(**config),
        encoder=State(State.Config()),
        state_dim=3,
        action_dim=2,
        seed=0,
        inference=Inference(),
    )


def test_advantages_end_where_the_task_does_and_not_where_the_collection_does(here):
    """Against the definition: A_t = sum_k (gamma lambda)^k delta_t+k within a piece; cut pieces are bootstrapped."""
    agent = make(gamma=0.9, gae_lambda=0.8)
    rng = np.random.default_rng(0)
    lengths, terminated, truncated = (4, 3, 2), np.zeros(9, bool), np.zeros(9, bool)
    terminated[3], truncated[6] = True, True  # the last piece is cut by the collection
    rollout = Rollout(
        obs=rng.standard_normal((9, 3)).astype(np.float32),
        actions=rng.standard_normal((9, 2)).astype(np.float32),
        rewards=rng.standard_normal(9),
        flags={},
        episode=np.repeat(np.arange(3), lengths).astype(np.int32),
        t=np.array([0, 1, 2, 3, 5, 6, 7, 0, 1], np.int32),
        terminated=terminated,
        truncated=truncated,
        final_obs=rng.standard_normal((3, 3)).astype(np.float32),
        slots=np.array([0, 1, 1], np.int32),
    )
    values, final = (torch.from_numpy(rng.standard_normal(n)) for n in (9, 3))
    advantages, returns = agent.advantages(rollout, values, final)
    v, begin = values.numpy(), 0
    for piece, length in enumerate(lengths):
        after = 0.0 if piece == 0 else float(final[piece])
        mine = np.append(v[begin : begin + length], after)
        deltas = rollout.rewards[begin : begin + length] + 0.9 * mine[1:] - mine[:-1]
        for i in range(length):
            expected = sum(0.72**k * deltas[i + k] for k in range(length - i))
            assert advantages[begin + i] == pytest.approx(expected, rel=1e-5)
            assert returns[begin + i] == pytest.approx(expected + v[begin + i], rel=1e-5)
        begin += length
    assert agent.update(rollout)["ppo/std"] > 0


def test_the_clipped_objective_holds_ratios_back(here):
    """Where the ratio has left the interval in the advantage's direction, the policy isn't pushed any further."""
    agent = make(value_weight=0.0, max_norm=1e9)
    g = torch.Generator().manual_seed(0)
    x, actions = torch.randn(4, 3, generator=g), torch.randn(4, 2, generator=g)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    log_prob = agent.policy.log_prob(agent.policy(x), actions).detach()
    for factor, moves in ((1.0, True), (1.5, False)):  # ratios of the good ones 1.5, of the bad ones 1 / 1.5
        before = [p.detach().clone() for p in agent.policy.trainable()]
        old = log_prob - np.log(factor) * advantages
        metrics = agent.learn(x, actions, old, advantages, torch.zeros(4))
        assert metrics["ppo/clipped"] == (0.0 if moves else 1.0)
        if moves:
            assert not all(torch.equal(a, p) for a, p in zip(before, agent.policy.trainable(), strict=True))
            agent = make(value_weight=0.0, max_norm=1e9)  # without the step's momentum
        else:
            assert all(torch.equal(a, p) for a, p in zip(before, agent.policy.trainable(), strict=True))


def test_the_running_mean_and_std_are_those_of_all_observations(here):
    agent = make()
    obs = 3.0 + 2.0 * torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    for part in obs.split((100, 250, 150)):
        agent.standardise_by(part)
    assert torch.allclose(agent.policy.in_shift, obs.mean(0), atol=1e-5)
    assert torch.allclose(agent.policy.in_scale, obs.std(0, correction=0), atol=1e-5)


@pytest.mark.slow
def test_it_swings_the_pole_up(here):
    """25 updates of 2,048 agent steps, 410,000 environment steps: a minute on one core."""
    settings = GIN.format(envs=8, iterations=25, log_every=2048 * 8)
    (here / "swingup.gin").write_text(settings + "PPO.steps = 256\nPPO.lr = 1e-3\n")
    assert process.start("swingup.gin", [], None, None) == 0
    (value,) = [
        row.metrics["eval/return"]
        for row in results.read(run_folder(here)).rows
        if row.metrics.get("iteration") == 25 and "eval/return" in row.metrics
    ]
    assert value > 400
