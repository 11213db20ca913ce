"""What RLPD makes of features: standardised, through a trunk, as principal components, of several views."""

import numpy as np
import pytest
import torch
from helpers.rlpd_agents import demonstrations, small
from helpers.sac_agents import (
    ACTION,
    STATE,
    Colours,
    moved,
    rollout_of,
    shaken,
    values,
)
from pydantic import ValidationError
from torch import nn

from rrl.agents.frozen import shifted
from rrl.agents.replay import Batch
from rrl.agents.rlpd import RLPD
from rrl.registry import UserError
from rrl.rollout.data import Obs


def test_inputs_are_standardised_as_the_demonstrations_vary():
    """In all networks, the targets' too; by hand; and a policy's file brings it along."""
    agent = shaken(small(standardise=True, actor_norm=True, start="clone", bc_epochs=1))
    assert any(isinstance(module, nn.LayerNorm) for module in agent.actor.mlp)
    demos = demonstrations(agent)
    agent.warm_start(demos)
    x = torch.tensor(demos.obs) * 50
    mean, std = demos.obs.astype(np.float64).mean(0), demos.obs.astype(np.float64).std(0)
    expected = ((x.numpy() - mean) / std).clip(-10, 10)
    assert (np.abs(expected) == 10).any()
    for network in (agent.actor, agent.online["critic"], agent.target["critic"]):
        np.testing.assert_allclose(network.trunk(x), expected, rtol=1e-4, atol=1e-4)
    assert {"actor.trunk.0.shift", "actor.trunk.0.scale"} <= agent.policy_state().keys()
    stacked = small(standardise=True, stack=2, reference="correct")
    stacked.warm_start(demos)
    beside = torch.cat((torch.tensor(demos.obs[:4]), torch.tensor(demos.obs[4:8]), torch.ones(4, ACTION)), dim=1)
    got = stacked.actor.trunk(beside)
    np.testing.assert_allclose(got[:, STATE : 2 * STATE], ((demos.obs[4:8] - mean) / std), rtol=1e-4, atol=1e-4)
    assert torch.equal(got[:, 2 * STATE :], torch.ones(4, ACTION))


def test_a_trunk_narrows_the_features_and_leaves_the_state():
    agent = shaken(small(encoder=Colours(), trunk=2, stack=2))
    rows = torch.randn(7, 2, agent.row)
    out = agent.actor.trunk(rows.flatten(1))
    assert out.shape == (7, 2 + 2 * STATE) and out[:, :2].abs().max() < 1
    assert torch.equal(out[:, 2:], rows[..., 3:].flatten(1))
    assert agent.actor.trunk is not agent.online["critic"].trunk
    parameters = {id(p) for p in agent.optimisers["critic"].parameters}
    assert {id(p) for p in agent.online["critic"].trunk.parameters()} <= parameters
    before, rng = values(agent), np.random.default_rng(0)
    batch = Batch(rng.random((8, 3, agent.row), np.float32), torch.rand(8, ACTION), torch.rand(8), torch.ones(8))
    agent.learn(batch)
    assert {"actor.trunk.0.linear.weight", "online.critic.trunk.0.linear.weight"} <= moved(before, values(agent))
    obs = Obs(np.zeros((3, 4, 4, 3), np.uint8), np.zeros((3, STATE), np.float32))
    assert agent.act(np.tile(agent.observe(obs), 2), None).shape == (3, ACTION)


PICTURES = {"encoder": Colours(), "principal": 2, "standardise": True}


def seen(count, seed):
    """Pictures of differing colours, and states."""
    rng = np.random.default_rng(seed)
    colours = rng.normal(128, (40, 10, 3), (count, 1, 1, 3)).clip(0, 255)
    state = rng.standard_normal((count, STATE)).astype(np.float32)
    return Obs(np.broadcast_to(colours, (count, 4, 4, 3)).astype(np.uint8), state)


def pictured_demonstrations(agent):
    return rollout_of(
        agent.observe_demo(seen(40, 3)), agent.observe_demo(seen(2, 4)), [20, 20], rng=np.random.default_rng(5)
    )


def test_features_are_kept_as_principal_components_beside_the_clones_action():
    """Against the singular value decomposition of standardised features."""
    agent = small(reference="correct", **PICTURES)
    demos = pictured_demonstrations(agent)
    assert demos.obs.shape == (40, 3 + STATE)  # all of it, before the warm start
    agent.warm_start(demos)
    rows = agent.observe(seen(40, 3))
    assert rows.shape == (40, agent.row) == (40, 2 + STATE + ACTION)
    features = demos.obs[:, :3].astype(np.float64)
    left = np.linalg.svd((features - features.mean(0)) / features.std(0))[0][:, :2] * np.sqrt(40)
    turned = np.sign((left * rows[:, :2]).sum(0))
    np.testing.assert_allclose(rows[:, :2], left * turned, atol=0.05)  # std of 40 or of 39
    np.testing.assert_array_equal(rows[:, 2 : 2 + STATE], demos.obs[:, 3:])
    base = agent.clone.mean(torch.tensor(demos.obs)).detach().clamp(-1, 1)
    np.testing.assert_allclose(rows[:, -ACTION:], base, rtol=1e-5, atol=1e-6)
    assert agent.demos_memory.row == agent.replay.row == agent.row
    # What acts: the clone's action and a correction; and gradients reach all features through both.
    agent.seen += 10
    x = torch.tensor(rows)
    expected = (base + 0.5 * torch.tanh(agent.actor(x)[0])).clamp(-1, 1)
    np.testing.assert_allclose(agent.act(rows, None), expected.detach(), rtol=1e-5, atol=1e-6)
    row = torch.tensor(demos.obs, requires_grad=True)
    np.testing.assert_allclose(agent.mean_action(row).detach(), expected.detach(), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(agent.mean_action(row).sum(), row)
    assert (gradient != 0).all()


def test_without_a_warm_start_components_are_zeros():
    """As a benchmark or a sweep's estimate has the agent, which measure what an update costs."""
    agent = small(reference="correct", init_steps=0, **PICTURES)
    rows = agent.observe(seen(3, 1))
    assert rows.shape == (3, agent.row) and not rows[:, :2].any()
    assert agent.act(rows, None).shape == (3, ACTION)
    agent.update(rollout_of(rows, rows[:1], [3], rng=np.random.default_rng(0)))


def test_components_that_hardly_vary_are_left_out():
    agent = small(**(PICTURES | {"principal": 3}))
    demos = pictured_demonstrations(agent)
    demos.obs[:, 2] = demos.obs[:, 1]
    agent.warm_start(demos)
    rows = agent.condensed(demos.obs)
    np.testing.assert_allclose(rows[:, :3].std(0), (1, 1, 0), atol=0.02)


def test_a_resumed_run_condenses_its_demonstrations_as_before():
    settings = {"reference": "correct", "warm_up": "clone", "init_steps": 0, **PICTURES}
    one, two, three = (small(seed=seed, **settings) for seed in (0, 5, 9))
    demos = pictured_demonstrations(one)
    one.warm_start(demos)
    two.remember(demos)
    two.restore(*one.snapshot())
    assert np.array_equal(one.demos_memory.rows, two.demos_memory.rows)
    assert one.learn(one.draw()) == two.learn(two.draw()) and not moved(values(one), values(two))
    three.load_policy_state(one.policy_state())
    for agent in (two, three):
        assert np.array_equal(agent.act(agent.observe(seen(4, 8)), None), one.act(one.observe(seen(4, 8)), None))


def test_no_more_components_than_features_and_no_trunk_beside_them():
    with pytest.raises(UserError, match="principal is 4, but the encoder has 3"):
        small(encoder=Colours(), principal=4)
    with pytest.raises(ValidationError, match="both narrow the features"):
        RLPD.Config(trunk=2, principal=2)
    assert small(principal=4).row == STATE  # of states alone nothing is condensed
    assert RLPD.Config(principal=2, views=3).kept_features(1280) == 6
    assert RLPD.Config(views=3).kept_features(1280) == 3840


def test_views_are_shifts_that_belong_to_the_picture():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 42, 84, 3), dtype=np.uint8)
    views = shifted(frames, 1)
    assert np.array_equal(views, shifted(frames[::-1], 1)[::-1]) and not np.array_equal(views, shifted(frames, 2))
    found = []
    for frame, view in zip(frames, views, strict=True):
        padded = np.pad(frame, ((2, 2), (4, 4), (0, 0)), mode="edge")
        places = [(y, x) for y in range(5) for x in range(9) if np.array_equal(padded[y : y + 42, x : x + 84], view)]
        assert len(places) == 1
        found += places
    assert len(set(found)) > 2


@pytest.mark.parametrize("principal", [None, 2])
def test_updates_draw_a_view_and_acting_takes_the_first(principal):
    """Of pictures whose mean colours a shift changes."""
    settings = {"encoder": Colours(), "principal": principal, "reference": "correct", "init_steps": 0}
    agent, plain = small(views=3, **settings), small(**settings)

    def pictures(count, seed):
        rng = np.random.default_rng(seed)
        return Obs(
            rng.integers(0, 256, (count, 42, 42, 3), dtype=np.uint8),
            rng.standard_normal((count, STATE)).astype(np.float32),
        )

    obs, final = agent.observe_demo(pictures(40, 3)), agent.observe_demo(pictures(2, 4))
    demos = rollout_of(obs, final, [20, 20], rng=np.random.default_rng(5))
    assert demos.obs.shape == (40, 3 * 3 + STATE)
    agent.warm_start(demos)
    width = 3 if principal is None else 2
    beside = 0 if principal is None else ACTION
    assert agent.row == width + STATE + beside
    assert agent.demos_memory.row == agent.kept_size() == 3 * (width + beside) + STATE
    plain.load_policy_state(agent.policy_state())
    kept, once = agent.observe(pictures(30, 6)), plain.observe(pictures(30, 6))
    np.testing.assert_allclose(agent.one_view(kept), once, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(agent.act(kept, None), plain.act(once, None), rtol=1e-4, atol=1e-6)
    with agent.acting():  # nothing else is encoded
        alone = agent.observe(pictures(30, 6))
        np.testing.assert_array_equal(alone, once)
        np.testing.assert_array_equal(agent.act(alone, None), plain.act(once, None))
    policy = small(views=3, seed=4, **settings)
    policy.load_policy_state(agent.policy_state())
    assert policy.observe(pictures(30, 6)).shape == (30, agent.row)
    assert agent.observe(pictures(30, 6)).shape == (30, agent.kept_size())
    rows = agent.one_view(np.repeat(kept[:1], 300, axis=0), drawn=True)
    shares = np.unique(rows, axis=0, return_counts=True)[1] / 300
    assert len(shares) == 3 and (shares > 0.25).all()
    assert np.ptp(rows[:, width : width + STATE], axis=0).max() == 0
    together = agent.one_view(np.broadcast_to(kept[0], (50, 3, kept.shape[1])), drawn=True)
    assert (together == together[:, :1]).all() and len(np.unique(together[:, 0], axis=0)) == 3  # one for a transition
    if principal:
        for row in rows[:10]:  # features and the clone's action are of the same view
            views = kept[0, : 3 * width].reshape(3, width)
            (view,) = np.flatnonzero((views == row[:width]).all(1))
            np.testing.assert_array_equal(row[-ACTION:], kept[0, -3 * ACTION :].reshape(3, ACTION)[view])
    assert np.isfinite(agent.learn(agent.draw(), actor=True)["sac/critic_loss"])
