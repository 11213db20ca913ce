"""RLPD: the ensemble, returns of several steps, targets of a subset, the clone that warms up, chooses, is corrected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.sac_agents import (
    ACTION,
    SIDES,
    STATE,
    Colours,
    make,
    moved,
    rollout_of,
    sampled,
    shaken,
    some_batch,
    some_obs,
    step_of,
    values,
    weights_of,
)
from pydantic import ValidationError
from torch import nn

from rrl.agents.frozen import shifted
from rrl.agents.replay import LAST, Batch
from rrl.agents.rlpd import RLPD
from rrl.encoders import PixelCNN
from rrl.registry import UserError
from rrl.rollout.data import Obs

SMALL = {"critics": 3, "updates_per_step": 2, "actor_every": 2, "policy_hidden": (8,), "bc_batch": 4}


def small(encoder=None, **settings):
    return make(RLPD, encoder=encoder, **(SMALL | settings))


def demonstrations(agent, seed=3):
    rng = np.random.default_rng(seed)
    obs, final = agent.observe_demo(some_obs(agent, 10, rng)), agent.observe_demo(some_obs(agent, 2, rng))
    return rollout_of(obs, final, [5, 5], rewards=100 + np.arange(10), rng=rng)


def separate(ensemble):
    """The same critics as networks of torch's own layers, one each."""
    networks = []
    for e in range(len(ensemble.weights[0])):
        layers = []
        for i, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            linear = nn.Linear(*weight.shape[1:])
            linear.weight.data, linear.bias.data = weight[e].detach().t().clone(), bias[e, 0].detach().clone()
            layers.append(linear)
            if i + 1 < len(ensemble.weights):
                if ensemble.norm:
                    norm = nn.LayerNorm(weight.shape[2])
                    norm.weight.data, norm.bias.data = (p[i][e, 0].clone() for p in (ensemble.scales, ensemble.shifts))
                    layers.append(norm)
                layers.append(nn.ReLU())
        networks.append(nn.Sequential(*layers))
    return networks


def test_the_ensemble_is_so_many_networks():
    """Values and gradients of one batched product are those of separate networks; members differ."""
    agent = shaken(small())
    ensemble = agent.online["critic"]
    x, actions = torch.randn(6, STATE), torch.rand(6, ACTION)
    apart = separate(ensemble)
    both = torch.cat((x, actions), dim=1)
    q, expected = ensemble(x, actions), torch.stack([network(both)[:, 0] for network in apart])
    torch.testing.assert_close(q, expected)
    torch.testing.assert_close(ensemble(x, actions, torch.tensor([2, 0])), expected[[2, 0]])
    assert (expected.std(0) > 1e-3).all()
    y = torch.randn(6)
    gradients = torch.autograd.grad(agent.error(q, y), [*ensemble.weights, *ensemble.scales])
    per_network = [
        torch.autograd.grad(
            (network(both)[:, 0] - y).square().mean(), [m.weight for m in network if hasattr(m, "weight")]
        )
        for network in apart
    ]
    linear, norms = (list(zip(*per_network, strict=True))[i::2] for i in (0, 1))
    wanted = [torch.stack(g).transpose(1, 2) for g in linear] + [torch.stack(g) for g in norms]
    for got, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got.squeeze(1), expected, rtol=1e-4, atol=1e-5)


def test_without_layer_norm():
    """Values are those of plain networks, and updates move them."""
    agent = small(critic_norm=False, init_steps=0)
    ensemble = agent.online["critic"]
    x, actions = torch.randn(6, STATE), torch.rand(6, ACTION)
    expected = torch.stack([network(torch.cat((x, actions), 1))[:, 0] for network in separate(ensemble)])
    torch.testing.assert_close(ensemble(x, actions), expected)
    agent.warm_start(demonstrations(agent))
    agent.update(step_of(agent, np.random.default_rng(0)))


def test_in_bf16_the_ensemble_is_nearly_what_it_is_in_float32():
    """Values and gradients, to bf16's three digits; weights, their gradients and values are float32."""
    agent = shaken(small(hidden=(32, 32)))
    ensemble = agent.online["critic"]
    x, actions = torch.randn(50, STATE), torch.rand(50, ACTION)
    both = []
    for ensemble.mixed in (False, True):
        q = ensemble(x, actions)
        both.append((q, *torch.autograd.grad(q.square().sum(), list(ensemble.parameters()))))
    for exact, rounded in zip(*both, strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - exact).norm() < 0.06 * exact.norm()


@pytest.mark.parametrize("entropy", [True, False])
def test_targets_are_of_the_drawn_critics(entropy):
    agent = shaken(small(gamma=0.9, init_alpha=0.3, entropy_backup=entropy, subset=2))
    batch = some_batch(agent, count=30)
    following = batch.rows[:, -1].astype(np.float64)
    noise = agent.noise(30)
    a, log_pi = sampled(weights_of(agent.actor), following, noise.double().numpy(), agent.config)
    both = torch.tensor(np.concatenate((following, a), axis=1)).float()
    apart = [network(both)[:, 0].detach().numpy() for network in separate(agent.target["critic"])]
    for chosen in ([0, 1], [2, 1]):
        value = np.minimum(*(apart[c] for c in chosen)) - (0.3 * log_pi if entropy else 0)
        y = agent.targets(batch.rewards, batch.not_done, agent.split(batch.rows[:, 1:]), noise, torch.tensor(chosen))
        np.testing.assert_allclose(
            y, batch.rewards.numpy() + 0.9 * batch.not_done.numpy() * value, rtol=1e-3, atol=1e-3
        )
    drawn = {tuple(sorted(agent.draws(4)[1].tolist())) for _ in range(60)}
    assert drawn == {(0, 1), (0, 2), (1, 2)}


def test_the_actor_climbs_the_mean_of_all_critics():
    agent = shaken(small())
    q = agent.online["critic"](torch.randn(5, STATE), torch.rand(5, ACTION))
    assert torch.equal(agent.judged(q), q.mean(0))


def test_the_entropy_is_held_at_half_of_what_sac_holds_it_at():
    assert small().target_entropy() == -ACTION / 2 and small(target_entropy=-7.0).target_entropy() == -7


def test_rewards_are_scaled_and_summed_over_steps():
    """Every return that is drawn is one of the demonstrations', summed by hand; none reaches over an episode's end."""
    agent = small(n_step=3, gamma=0.5, reward_scale=0.1, batch=200)
    demos = demonstrations(agent)
    agent.warm_start(demos)
    batch = agent.draw()
    by_first = {float(first): i for i, first in enumerate(demos.obs[:, 0])}
    follows = np.concatenate(
        [np.append(demos.obs[5 * e : 5 * e + 5], demos.final_obs[e][None], axis=0) for e in (0, 1)]
    )
    starts = set()
    for rows, reward, remains in zip(batch.rows, batch.rewards, batch.not_done, strict=True):
        i = by_first[float(rows[0, 0])]
        e, t = divmod(i, 5)
        steps = min(3, 5 - t)
        assert reward == pytest.approx(0.1 * sum(0.5**k * (100 + i + k) for k in range(steps)))
        assert remains == pytest.approx(0.5 ** (steps - 1))
        assert np.array_equal(rows[1], follows[6 * e + t + steps])
        starts.add(i)
    assert starts == set(range(10))


def test_dropout_leaves_a_share_of_the_units_and_their_mean():
    """By hand for one critic; drawn shares; none where values are told or climbed; and it goes on bit for bit."""
    agent = shaken(small(dropout=0.25, hidden=(200, 200), subset=1))
    x, actions = torch.randn(5, STATE), torch.rand(5, ACTION)
    _, chosen, *kept = agent.draws(5)
    assert [tuple(k.shape) for k in kept] == [(3, 5, 200)] * 2 + [(1, 5, 200)] * 2
    share = torch.cat([(k > 0).float().flatten() for k in kept]).mean()
    assert share == pytest.approx(0.75, abs=0.02)
    assert sorted(kept[0].unique().tolist()) == pytest.approx([0, 1 / 0.75])
    qs = agent.values(x, actions, torch.empty(0), chosen, *kept)
    network = separate(agent.online["critic"])[1]
    h = torch.cat((x, actions), dim=1)
    for i, keep in enumerate(kept[:2]):
        h = torch.relu(network[3 * i + 1](network[3 * i](h) * keep[1]))
    torch.testing.assert_close(qs[1], network[-1](h)[:, 0])
    assert not torch.allclose(qs, agent.online["critic"](x, actions))
    agent.warm_start(demonstrations(agent))
    assert np.isfinite(agent.learn(agent.draw(), actor=True)["sac/critic_loss"])


def test_soft_bounds_let_a_root_pass():
    agent = small(bounded_targets=True, soft_bound=True, gamma=0.5)
    agent.warm_start(demonstrations(agent))  # rewards to 109: 218 for ever
    y = torch.tensor([-5.0, 0.0, 218.5, 219.0, 222.0, 1218.0])
    assert agent.bounded(y).tolist() == pytest.approx([0, 0, 218.5, 219, 220, 218 + 1000**0.5])
    with pytest.raises(ValidationError, match="bounded_targets"):
        RLPD.Config(soft_bound=True)


def test_bounds_are_of_scaled_rewards():
    agent = small(reward_scale=0.1, bounded_targets=True, gamma=0.9)
    agent.warm_start(demonstrations(agent))
    assert agent.bounds().tolist() == pytest.approx([0, 109 * 0.1 / 0.1])


def test_demonstrations_are_learnt_from_beyond_the_horizon():
    """People took longer: what follows the horizon is drawn too, and nothing is earned for free there."""
    agent = small(n_step=2, batch=400, gamma=0.5)
    demos = demonstrations(agent)
    late = replace(demos, truncated=demos.t >= 2)  # a horizon of 3 steps; both go on to 5
    agent.warm_start(late)
    assert agent.demos_memory is not None and int((agent.demos_memory.kind != LAST).sum()) == 10
    rewards = {round(float(r), 3) for r in agent.draw().rewards}
    assert rewards == {round(100 + i + (0.5 * (101 + i) if i % 5 < 4 else 0), 3) for i in range(10)}


# ---- how the critics do


def finished(agent, length=6, seed=4):
    """A rollout of one whole episode that a time limit ends."""
    rng = np.random.default_rng(seed)
    obs, final = agent.observe(some_obs(agent, length, rng)), agent.observe(some_obs(agent, 1, rng))
    return rollout_of(obs, final, [length], rewards=1 + np.arange(length), rng=rng)


def test_values_are_compared_with_what_was_earned():
    """Critics that say 7 of everything, by hand; and units that are 0 everywhere."""
    agent = shaken(small(gamma=0.5, reward_scale=0.1, init_steps=0, updates_per_step=1, reference="none"))
    agent.warm_start(demonstrations(agent))
    agent.update(finished(agent))
    episode = agent.replay.latest(0)
    assert episode is not None and len(episode.rewards) == 6

    class Seven(nn.Module):
        def forward(self, x, actions, keep=None, hidden=None):
            if hidden is not None:
                hidden.append(torch.tensor([[[1.0, 0, 0], [2.0, 0, 3]]]))
            return torch.full((3, len(x)), 7.0)

    agent.online["critic"] = Seven()
    told = agent.diagnose(episode)
    earned = [sum(0.5 ** (k - t) * 0.1 * (1 + k) for k in range(t, 6)) + 0.5 ** (6 - t) * 7 for t in range(6)]
    assert told["critics/gap"] == pytest.approx(7 - np.mean(earned), rel=1e-5)
    assert told["critics/dead_units"] == pytest.approx(1 / 3)
    assert "actor/correction" not in told


def test_the_size_of_corrections_is_told():
    agent = shaken(small(reference="correct", correction=0.2, init_steps=0), 0.3)
    agent.warm_start(demonstrations(agent))
    agent.update(finished(agent))
    episode = agent.replay.latest(0)
    x = torch.tensor(episode.rows[:, 0])
    size = np.sqrt(np.mean(((agent.choose(x, None) - agent.base(x)).detach().numpy() / 0.2) ** 2))
    assert (agent.choose(x, None).abs() < 1).all(), "the test needs actions that nothing cuts"
    assert agent.diagnose(episode)["actor/correction"] == pytest.approx(size, rel=1e-4)


def test_an_episodes_end_is_told_of():
    agent = small(init_steps=0, gamma=0.5)
    agent.warm_start(demonstrations(agent))  # rewards to 109: nothing is worth more than 218
    said = agent.update(finished(agent))
    assert {"critics/gap", "critics/dead_units"} <= said.keys() and said["critics/impossible"] == 0
    assert "critics/gap" not in agent.update(step_of(agent, np.random.default_rng(0)))
    with torch.no_grad():
        agent.target["critic"].biases[-1] += 1e4
    assert agent.learn(agent.draw())["critics/impossible"] == 1


# ---- noise of a fixed size


@pytest.mark.parametrize("reference", ["none", "correct"])
def test_fixed_noise_stands_for_a_temperature(reference):
    agent = shaken(small(exploration_std=0.2, reference=reference, init_steps=0), 0.3)
    x, noise = torch.randn(7, STATE), 3 * torch.randn(7, ACTION)
    mean, acted = agent.choose(x, None), agent.choose(x, noise)
    torch.testing.assert_close(acted, (mean + (0.2 * noise).clamp(-0.3, 0.3)).clamp(-1, 1))
    proposed, log_prob = agent.propose(x, noise)
    assert torch.equal(proposed, acted) and not log_prob.any()
    agent.warm_start(demonstrations(agent))
    before = values(agent)
    said = agent.learn(agent.draw(), actor=True)
    changed = moved(before, values(agent))
    assert "log_alpha" not in changed and "actor.mlp.0.weight" in changed and "sac/alpha" not in said


# ---- features


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


# ---- the clone


def test_the_clone_acts_first_with_noise():
    agent = small(warm_up="clone", warm_up_noise=0.5, init_steps=10)
    agent.warm_start(demonstrations(agent))
    observed = agent.observe(some_obs(agent, 6, np.random.default_rng(0)))
    noise = np.random.default_rng(1).standard_normal((6, ACTION)).astype(np.float32)
    base = agent.clone.mean(torch.tensor(observed)).detach().numpy()
    np.testing.assert_allclose(agent.act(observed, None), base.clip(-1, 1), rtol=1e-6)
    np.testing.assert_allclose(agent.act(observed, noise), (base.clip(-1, 1) + 0.5 * noise).clip(-1, 1), rtol=1e-5)
    agent.seen += 10
    np.testing.assert_allclose(agent.act(observed, None), agent.own(torch.tensor(observed), None).detach(), rtol=1e-6)


def test_of_two_actions_the_better_one_is_taken():
    """By hand: critics that like large actions, or small ones, of whoever proposes them."""
    agent = shaken(small(reference="choose", init_steps=0), 0.5)
    x = torch.randn(20, STATE)
    own, base = agent.own(x, None).detach(), agent.base(x)
    likes = {"own": own, "clone": base}

    class Likes(nn.Module):
        def __init__(self, wanted):
            super().__init__()
            self.wanted = wanted

        def forward(self, x, actions, chosen=None, keep=None):
            return -(actions - self.wanted).square().sum(1).expand(2 if chosen is not None else 3, -1)

    for wanted in likes.values():
        agent.target["critic"] = Likes(wanted)
        assert torch.equal(agent.choose(x, None), wanted)
    # and in targets: the value of the better one
    agent.target["critic"], agent.config = Likes(base), agent.config.model_copy(update={"entropy_backup": False})
    value = agent.value_after(agent.split(x[:, None].numpy()), torch.zeros(20, ACTION), torch.tensor([0, 1]))
    assert torch.equal(value, torch.zeros(20))


def test_corrections_are_added_to_the_clones_action():
    agent = shaken(small(reference="correct", correction=0.2, init_steps=0), 0.3)
    x = torch.randn(9, STATE)
    base = agent.base(x)
    mu, _ = agent.actor(torch.cat((x, base), dim=1))
    torch.testing.assert_close(agent.choose(x, None), (base + 0.2 * torch.tanh(mu)).clamp(-1, 1))
    proposed, log_pi = agent.propose(x, torch.zeros(9, ACTION))
    torch.testing.assert_close(proposed, agent.choose(x, None))
    assert log_pi.shape == (9,)


def test_corrections_may_cost():
    """The penalty by hand; so large a one that it alone counts takes them back to nothing."""
    agent = shaken(small(reference="correct", correction_weight=2.0, init_steps=0, actor_lr=1e-2), 0.3)
    x, q = torch.randn(9, STATE), torch.tensor([3.0, -5.0])

    def corrections():
        return torch.tanh(agent.actor(torch.cat((x, agent.base(x)), dim=1))[0]).detach()

    before = corrections()
    expected = 2 * 4 * before.square().mean().item()
    assert agent.imitation(x, torch.zeros(9, ACTION), q).item() == pytest.approx(expected, rel=1e-4)
    agent.config = agent.config.model_copy(update={"correction_weight": 1e6})
    agent.warm_start(demonstrations(agent))
    for _ in range(60):
        agent.learn(agent.draw(), actor=True)
    assert corrections().abs().mean() < 0.5 * before.abs().mean()
    with pytest.raises(ValidationError, match="reference is 'none'"):
        RLPD.Config(correction_weight=1.0)


def test_cloning_moves_no_actor():
    """The clone regularises nothing: with no updates, the actor stays as it was drawn."""
    agent = small(reference="choose")
    before = values(agent)
    said = agent.warm_start(demonstrations(agent))
    assert said["bc/loss_after"] < said["bc/loss_before"]
    assert all(name.startswith("clone.") for name in moved(before, values(agent)))


@pytest.mark.parametrize("reference", ["none", "choose", "correct"])
def test_goes_on_as_if_never_stopped_and_acts_from_its_policy_alone(reference, tmp_path):
    settings = {"reference": reference, "warm_up": "clone", "init_steps": 1, "n_step": 2, "bounded_targets": True}
    one = small(**settings)
    demos = demonstrations(one)
    one.warm_start(demos)
    one.update(step_of(one, np.random.default_rng(0)))
    manifest = one.replay.commit(tmp_path)
    two = small(seed=5, **settings)
    two.remember(demos)
    two.restore(*one.snapshot())
    two.replay.load(tmp_path, manifest)
    online = [agent.update(step_of(agent, np.random.default_rng(1), t=1)) for agent in (one, two)]
    assert online[0] == online[1] and not moved(values(one), values(two))
    three = small(seed=9, **settings)
    three.load_policy_state(one.policy_state())
    observed = one.observe(some_obs(one, 4, np.random.default_rng(2)))
    noise = np.ones((4, ACTION), np.float32)
    for drawn in (None, noise):
        assert np.array_equal(one.act(observed, drawn), three.act(observed, drawn))


def test_the_actor_may_begin_at_the_demonstrations():
    agent = small(start="clone", bc_epochs=60)
    before = values(agent)
    demos = demonstrations(agent)
    x = torch.tensor(demos.obs)
    off = [(agent.own(x, None).detach().numpy() - demos.actions).std()]
    agent.warm_start(demos)
    off.append((agent.own(x, None).detach().numpy() - demos.actions).std())
    assert off[1] < 0.7 * off[0]
    assert all(name.startswith("actor.") for name in moved(before, values(agent)))  # and no clone was asked for


def test_critics_learn_alone_before_anything_follows_them():
    agent = small(critics_first=7, init_steps=2, updates_per_step=1, actor_every=1)
    agent.warm_start(demonstrations(agent))
    actor, actions = values(agent.actor), agent.optimisers["actor"].steps
    agent.update(step_of(agent, np.random.default_rng(0)))
    assert agent.updates == 0
    agent.update(step_of(agent, np.random.default_rng(1), t=1))  # the second step: 7 of critics, 1 of all
    assert agent.updates == 8 and {float(count) for count in actions} == {1.0} and moved(actor, values(agent.actor))
    assert float(agent.optimisers["critic"].steps[0]) == 8
    agent.update(step_of(agent, np.random.default_rng(2), t=2))
    assert agent.updates == 9
    at_once = small(critics_first=7, init_steps=0, updates_per_step=1)
    at_once.warm_start(demonstrations(at_once))
    at_once.update(step_of(at_once, np.random.default_rng(0)))
    assert at_once.updates == 8  # without a warm-up, before the first step's


def test_it_learns_from_pictures_as_it_is_to_see_them():
    """With an encoder that learns: the actor is fitted to views as large as training's, and all of it goes on."""
    agent = small(encoder=PixelCNN(PixelCNN.Config(**SIDES), 1), start="clone", init_steps=1, replay=60)
    agent.warm_start(demonstrations(agent))
    before = values(agent)
    agent.update(step_of(agent, np.random.default_rng(0)))
    assert {"online.encoder.convolutions.0.weight", "actor.mlp.0.weight"} <= moved(before, values(agent))


def test_an_encoder_is_not_to_be_trained_in_a_warm_start_that_trains_none():
    with pytest.raises(ValidationError, match="encoder_loss"):
        RLPD.Config(encoder_loss="warm_start")
