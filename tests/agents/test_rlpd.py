"""RLPD: the ensemble, returns of several steps, targets of a subset, the clone that warms up, chooses, is corrected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.rlpd_agents import demonstrations, small
from helpers.sac_agents import (
    ACTION,
    SIDES,
    STATE,
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

from rrl.agents.replay import LAST
from rrl.agents.rlpd import RLPD
from rrl.encoders import PixelCNN


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
