"""SAC's density, targets, losses and gradients against independent references."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.sac_agents import (
    ACTION,
    STATE,
    both_q,
    codes,
    losses_of,
    make,
    sampled,
    shaken,
    slope_of,
    some_batch,
    some_rollout,
    weights_of,
)
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.nn import functional as F

from rrl.agents.off_policy import Seen
from rrl.agents.rad import RAD, SACAE
from rrl.agents.sac import SAC, Actor, log_slope
from rrl.config import ginfile
from rrl.registry import UserError

# ---- the policy's density


def actor_of(form="stable", m=2, seed=0, **config):
    actor = Actor(4, m, SAC.Config(hidden=(8,), log_prob=form, **config), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + 1)))
    return actor.double()


def inputs(count=20, m=2, n=4, seed=3):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(count, k, generator=g, dtype=torch.float64) for k in (n, m)]


@pytest.mark.parametrize(("form", "tolerance"), [("stable", 1e-6), ("clipped", 1.1e-3)])
def test_log_prob_is_the_density_of_the_actions(form, tolerance):
    """The share of probability that noise carries, over the length of actions that it is spread on."""
    actor, (x, noise) = actor_of(form), inputs()
    actions, log_prob = actor.sample(x, noise)
    use = (actions.abs() < 0.999).all(1)  # the finite differences and the clipping are exact enough there
    assert use.sum() >= 10 and log_prob.std() > 0.5
    h = 1e-5
    spread = (actor.sample(x, noise + h)[0] - actor.sample(x, noise - h)[0]) / (2 * h)
    density = torch.exp(-noise.square() / 2) / math.sqrt(2 * math.pi) / spread
    torch.testing.assert_close(log_prob[use], density.log().sum(1)[use], rtol=0, atol=tolerance)


def test_log_prob_is_torchs_and_integrates_to_one():
    actor, (x, noise) = actor_of(), inputs()
    mu, log_std = actor(x)
    squashed = TransformedDistribution(Normal(mu, log_std.exp()), TanhTransform(cache_size=1))
    actions, log_prob = actor.sample(x, noise)
    torch.testing.assert_close(log_prob, squashed.log_prob(actions).sum(1), rtol=1e-6, atol=1e-6)

    one, (x, _) = actor_of(m=1), inputs(count=3)
    noise = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    for row in x:
        actions, log_prob = one.sample(row.expand(len(noise), -1), noise)
        assert torch.trapezoid(log_prob.exp(), actions[:, 0]).item() == pytest.approx(1, abs=1e-4)


def test_both_forms_agree_where_the_tanh_is_not_flat():
    u = torch.linspace(-3, 3, 101, dtype=torch.float64)
    torch.testing.assert_close(log_slope(u, "stable"), -2 * u.cosh().log(), rtol=1e-12, atol=1e-12)
    gap = log_slope(u, "clipped") - log_slope(u, "stable")
    torch.testing.assert_close(gap, torch.log1p(1e-6 * u.cosh().square()), rtol=1e-6, atol=1e-12)
    assert gap.max() > 5e-5  # so that one form isn't the other
    far = torch.tensor([-40.0, 40.0], requires_grad=True)
    torch.testing.assert_close(log_slope(far, "stable").detach(), torch.full((2,), 2 * math.log(2) - 80))
    torch.testing.assert_close(log_slope(far, "clipped").detach(), torch.full((2,), math.log(1e-6)))
    for form in ("stable", "clipped"):
        (gradient,) = torch.autograd.grad(log_slope(far, form).sum(), far)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("low", "high"), [(-5.0, 2.0), (-10.0, 1.0)])
def test_log_std_lies_between_its_bounds(low, high):
    actor = actor_of(m=5, log_std_min=low, log_std_max=high)
    raw = torch.tensor([-50.0, -1.0, 0.0, 0.5, 50.0])
    with torch.no_grad():
        actor.mlp[-1].weight.zero_()
        actor.mlp[-1].bias.copy_(torch.cat((torch.arange(5), raw)))
    mu, log_std = actor(torch.zeros(1, 4, dtype=torch.float64))
    assert mu[0].tolist() == [0, 1, 2, 3, 4]
    share = [(math.tanh(r) + 1) / 2 for r in raw.tolist()]
    assert log_std[0].tolist() == pytest.approx([low + s * (high - low) for s in share], abs=1e-12)
    assert log_std[0, [0, -1]].tolist() == pytest.approx([low, high])


# ---- targets


@pytest.mark.parametrize("form", ["stable", "clipped"])
def test_targets_on_a_state_by_hand(form):
    agent = shaken(make(log_prob=form, gamma=0.9, init_alpha=0.3, batch=40))
    agent.replay.add(some_rollout(agent, (6, 1, 5, 9, 4), terminated=(0, 1, 3)))
    batch = agent.replay.draw(40, agent.generator)
    following = batch.rows[:, -1].astype(np.float64)
    noise = agent.noise(40)
    a, log_pi = sampled(weights_of(agent.actor), following, noise.double().numpy(), agent.config)
    q = both_q(weights_of(agent.target["critic"]), following, a)
    expected = batch.rewards.double().numpy() + 0.9 * batch.not_done.double().numpy() * (np.minimum(*q) - 0.3 * log_pi)
    y = agent.targets(batch.rewards, batch.not_done, agent.split(batch.rows[:, 1:]), noise)
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4)
    assert not y.requires_grad
    assert 0 < batch.not_done.mean() < 1
    # what would be wrong is far away: online critics, one critic only
    assert np.abs(np.minimum(*q) - np.minimum(*both_q(weights_of(agent.online["critic"]), following, a))).max() > 0.1
    assert np.abs(q[0] - q[1]).max() > 0.1


def test_time_limits_are_no_ends():
    agent = make()
    rollout = some_rollout(agent, (6, 1, 5, 9, 4), terminated=(0, 1, 3))
    agent.replay.add(rollout, slots=2)
    batch = agent.replay.draw(300, agent.generator)
    ended = {r: bool(e) for r, e in zip(rollout.rewards.astype(np.float32), rollout.terminated, strict=True)}
    assert {r for r, keep in zip(batch.rewards.tolist(), batch.not_done.tolist(), strict=True) if not keep} == {
        float(r) for r, e in ended.items() if e
    }
    assert {float(r) for r in ended} == set(batch.rewards.tolist())  # all were drawn, truncated steps too


@pytest.mark.parametrize("cls", [RAD, SACAE])
def test_targets_on_pictures_by_hand(cls):
    """a' comes from the actor on the online convolutions; Q' from the target's convolutions and head."""
    agent = shaken(make(cls, gamma=0.9), scale=0.2)
    batch = some_batch(agent)
    after = agent.split(batch.rows[:, 1:])
    (after,) = agent.augmented(after)
    state = after.vector.double().numpy()
    squash = cls is SACAE
    for_actor = codes(agent.pixels.convolutions, agent.actor_head, after.frames, squash)
    for_critic = codes(agent.target["encoder"].convolutions, agent.target["head"], after.frames, squash)
    noise = agent.noise(8)
    x = np.hstack((for_actor, state))
    a, log_pi = sampled(weights_of(agent.actor), x, noise.double().numpy(), agent.config)
    q = both_q(weights_of(agent.target["critic"]), np.hstack((for_critic, state)), a)
    y = agent.targets(batch.rewards, batch.not_done, after, noise)
    bootstrap = 0.9 * batch.not_done.numpy() * (np.minimum(*q) - 0.1 * log_pi)
    np.testing.assert_allclose(y - batch.rewards, bootstrap, rtol=1e-3, atol=1e-3)
    online = codes(agent.pixels.convolutions, agent.online["head"], after.frames, squash)
    assert np.abs(online - for_critic).max() > 0.1 and np.abs(online - for_actor).max() > 0.1


# ---- losses and gradients


@pytest.mark.parametrize("form", ["stable", "clipped"])
def test_losses_and_gradients_on_a_state_equal_finite_differences(form, monkeypatch):
    agent = shaken(make(hidden=(5, 4), log_prob=form, gamma=0.9, init_alpha=0.3), scale=0.3).double()
    config, rng = agent.config, np.random.default_rng(1)
    s, after = rng.standard_normal((2, 8, STATE))
    actions, rewards = rng.uniform(-1, 1, (8, ACTION)), rng.standard_normal(8)
    not_done = np.array([1, 0, 1, 1, 0, 1, 1, 1.0])
    kept = losses_of(agent, monkeypatch)
    now, then = (Seen(None, torch.tensor(x)) for x in (s, after))

    batch = [torch.tensor(x) for x in (actions, rewards, not_done)]
    noise = rng.standard_normal((8, ACTION))
    agent.learn_critic(now, *batch, then, torch.tensor(noise))
    actor, critic = weights_of(agent.actor), weights_of(agent.online["critic"])
    a, log_pi = sampled(actor, after, noise, config)
    q = both_q(weights_of(agent.target["critic"]), after, a)
    y = rewards + 0.9 * not_done * (np.minimum(*q) - 0.3 * log_pi)

    def critic_loss():
        return sum(np.mean((q - y) ** 2) for q in both_q(critic, s, actions))

    loss, gradients = kept["critic"]
    assert loss == pytest.approx(critic_loss(), rel=1e-6)
    for got, expected in zip(gradients, slope_of(critic_loss, critic), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    noise = rng.standard_normal((8, ACTION))
    metrics = agent.learn_actor(now, batch[0], torch.tensor(noise))

    def actor_loss(alpha=0.3):
        a, log_pi = sampled(actor, s, noise, config)
        return np.mean(alpha * log_pi - np.minimum(*both_q(critic, s, a)))

    loss, gradients = kept["actor"]
    assert loss == pytest.approx(actor_loss(), rel=1e-6)
    for got, expected in zip(gradients, slope_of(actor_loss, actor), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    # The temperature: alpha * (entropy + m), by log alpha.
    entropy = -sampled(actor, s, noise, config)[1].mean()
    assert metrics["sac/entropy"].item() == pytest.approx(entropy, rel=1e-6)
    log_alpha = np.array([math.log(0.3)])
    expected = slope_of(lambda: np.exp(log_alpha[0]) * (entropy + ACTION), [log_alpha])[0][0]
    loss, (gradient,) = kept["alpha"]
    assert gradient == pytest.approx(expected, rel=1e-5) and loss == pytest.approx(expected, rel=1e-5)
    assert abs(entropy) > 0.1


def test_the_temperature_holds_the_entropy_that_is_asked_for(monkeypatch):
    agent = make(target_entropy=-7.0, init_alpha=0.3)
    kept = losses_of(agent, monkeypatch)
    metrics = agent.learn(some_batch(agent))
    assert kept["alpha"][0] == pytest.approx(0.3 * (metrics["sac/entropy"] + 7), rel=1e-5)


def test_critics_normalise_their_hidden_layers_if_asked_to():
    agent = shaken(make(hidden=(5, 4), critic_norm=True), scale=0.3)
    x, a = torch.randn(6, STATE), torch.rand(6, ACTION)
    for q, got in zip(
        (agent.online["critic"].q1, agent.online["critic"].q2), agent.online["critic"](x, a), strict=True
    ):
        w0, b0, g0, s0, w1, b1, g1, s1, w2, b2 = q.parameters()
        h = F.relu(F.layer_norm(torch.cat((x, a), 1) @ w0.T + b0, (5,), g0, s0))
        h = F.relu(F.layer_norm(h @ w1.T + b1, (4,), g1, s1))
        torch.testing.assert_close(got, (h @ w2.T + b2)[:, 0])
    assert not any("LayerNorm" in str(m) for m in make(hidden=(5, 4)).online["critic"].modules())


def test_targets_stay_within_what_the_rewards_allow():
    """Rewards of -1 to 3, discount 0.9: no policy has more than 30 or less than -10."""
    agent = make(bounded_targets=True, gamma=0.9, init_steps=100)
    batch = some_batch(agent)
    after = agent.split(batch.rows[:, 1:])
    noise = agent.noise(len(batch.rewards))
    rollout = some_rollout(agent)
    agent.update(dataclasses.replace(rollout, rewards=np.linspace(-1, 3, len(rollout.rewards))))
    with torch.no_grad():
        for q, sign in ((agent.target["critic"].q1, 1), (agent.target["critic"].q2, 1)):
            q[-1].bias.fill_(sign * 1e3)
    assert (agent.targets(batch.rewards, torch.ones(8), after, noise) == 30).all()
    with torch.no_grad():
        agent.target["critic"].q2[-1].bias.fill_(-1e3)
    assert (agent.targets(batch.rewards, torch.ones(8), after, noise) == -10).all()
    assert (agent.targets(batch.rewards, torch.zeros(8), after, noise) == batch.rewards.clamp(-10, 30)).all()
    other = make(bounded_targets=True, gamma=0.9, init_steps=100, seed=1)
    other.restore(*agent.snapshot())
    assert other.reward_range.tolist() == [-1, 3]  # a resumed run has the same bounds
    with pytest.raises(UserError, match=r"gamma 1.* have no bound"):
        ginfile.loads("SAC.bounded_targets = True\nSAC.gamma = 1.0\n", "x.gin", root="SAC")


def test_the_temperature_falls_while_the_entropy_is_above_its_target():
    for raw, sign in ((0.0, -1), (-9.0, 1)):  # std 0.22 or exp(-5), where the entropy is below -2
        agent = make(alpha_lr=0.01)
        with torch.no_grad():
            agent.actor.mlp[-1].bias[ACTION:] = raw
        before = agent.log_alpha.item()
        agent.target["critic"].requires_grad_(False)
        metrics = agent.learn(some_batch(agent))
        assert (metrics["sac/entropy"] > -ACTION) == (sign < 0)
        assert agent.log_alpha.item() - before == pytest.approx(0.01 * sign, rel=1e-3)


def test_gradients_on_pictures_equal_an_independent_graph(monkeypatch):
    """The critics' loss trains convolutions, head and critics; float64, by other layers."""
    agent = shaken(make(RAD))
    kept = losses_of(agent, monkeypatch)
    batch = some_batch(agent)
    (now,) = agent.augmented(agent.split(batch.rows[:, :-1]))
    y = torch.randn(8, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(agent, "targets", lambda *_: y)
    agent.learn_critic(now, batch.actions, batch.rewards, batch.not_done, now, agent.noise(8))
    parameters = [p.detach().double().requires_grad_() for p in agent.optimisers["critic"].parameters]
    c1, b1, c2, b2, w, b, gain, shift, *q = parameters
    maps = now.frames.permute(0, 3, 1, 2).double() / 255
    maps = F.relu(F.conv2d(F.relu(F.conv2d(maps, c1, b1, stride=2)), c2, b2)).permute(0, 2, 3, 1).flatten(1)
    code = F.layer_norm(maps @ w.T + b, (6,), gain, shift)
    loss = 0
    for k in (0, 6):
        x = torch.cat((code, now.vector.double(), batch.actions.double()), 1)
        for i in range(k, k + 6, 2):
            x = x @ q[i].T + q[i + 1]
            x = F.relu(x) if i < k + 4 else x
        loss = loss + (x[:, 0] - y.double()).square().mean()
    found, gradients = kept["critic"]
    assert found == pytest.approx(loss.item(), rel=1e-4)
    for got, expected in zip(gradients, torch.autograd.grad(loss, parameters), strict=True):
        scale = expected.abs().max().item()
        np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-4 * scale)
