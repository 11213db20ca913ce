"""SAC, RAD, CURL, SAC+AE: what moves when, that it learns, and the published settings."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.sac_agents import (
    ACTION,
    PIXELS,
    STATE,
    codes,
    gaussian,
    make,
    moved,
    names_of,
    rollout_of,
    shaken,
    some_batch,
    some_obs,
    some_rollout,
    step_of,
    values,
    watched,
    weights_of,
)
from torch import nn

from rrl.agents.ferm import FERM
from rrl.agents.rad import CURL, RAD, SACAE
from rrl.agents.sac import SAC
from rrl.config import ginfile
from rrl.registry import UserError

# ---- what moves, by which loss, and how far


CASES = [
    (SAC, {}, None),
    (RAD, {}, None),
    (CURL, {}, "own"),
    (SACAE, {}, "own"),
    (FERM, {}, None),
    (FERM, {"encoder_loss": "always"}, "own"),
    (CURL, {"encoder_loss": "never"}, None),
    (RAD, {"encoder_loss": "always"}, None),
]


@pytest.mark.parametrize(("cls", "config", "own"), CASES)
def test_each_loss_moves_its_parameters_and_no_others(cls, config, own, monkeypatch):
    agent = shaken(make(cls, **config), scale=0.05)
    seen = watched(agent, monkeypatch)
    batch = some_batch(agent)
    shared = names_of(agent, "online.encoder.convolutions.", "online.head.")
    assert len(shared) == (0 if cls is SAC else 8)
    critics = shared | names_of(agent, "online.critic.")
    actor = names_of(agent, "actor.", "actor_head.")
    targets = names_of(agent, "target.critic.", "target.head.", "target.encoder.convolutions.")
    objective = names_of(agent, "online.encoder.objective.")
    expected = [("critic", critics), ("actor", actor), ("alpha", {"log_alpha"})]
    metrics = agent.learn(batch)
    assert ("encoder/loss" in metrics) == (own is not None)
    assert [label for label, _ in seen] == ["critic", "actor", "alpha", "targets"] + (["encoder+own"] if own else [])
    steps = dict(seen)
    for label, names in expected:
        assert steps[label] == names, label
    assert targets <= steps["targets"] <= names_of(agent, "target.")
    if own:
        assert objective and steps["encoder+own"] == shared | objective
    if agent.pixels is not None:  # no time is spent on gradients that nobody takes
        (now,) = agent.augmented(agent.split(batch.rows[:, :-1]))
        trunk = agent.pixels.trunk_parameters()
        assert torch.autograd.grad(agent.for_actor(now).sum(), trunk, allow_unused=True) == (None,) * 4
    assert not agent.alpha.requires_grad
    everything = names_of(agent, "online.", "target.", "actor.", "actor_head.", "log_alpha")
    assert everything == {name for name, _ in agent.named_parameters()}  # nothing was overlooked


def test_actor_and_targets_have_periods_of_their_own(monkeypatch):
    agent = make(RAD, actor_every=2, target_every=3)
    seen = watched(agent, monkeypatch)
    labels = []
    for i in range(7):
        agent.learn(some_batch(agent, seed=i))
        labels.append([label for label, _ in seen])
        seen.clear()
    assert [("actor" in found, "alpha" in found) for found in labels] == [(i % 2 == 0,) * 2 for i in range(7)]
    assert ["targets" in found for found in labels] == [i % 3 == 0 for i in range(7)]
    assert all(found.count("critic") == 1 for found in labels)


RATES = {"actor_lr": 0.02, "critic_lr": 0.003, "alpha_lr": 0.0004}


@pytest.mark.parametrize(("cls", "times"), [(CURL, 2), (SACAE, 1)])
def test_learning_rates_and_curls_two_optimisers(cls, times, monkeypatch):
    """Adam's first step is as long as its learning rate, wherever the gradient isn't tiny."""
    agent = make(cls, encoder={"own_learning_rate": 0.0007}, **RATES)
    found = {}
    original = agent.step

    def step(loss, *names):
        before = values(agent)
        original(loss, *names)
        found["+".join(names)] = {
            name: (p.detach() - before[name]).abs().max().item() for name, p in agent.named_parameters()
        }

    monkeypatch.setattr(agent, "step", step)
    agent.learn(some_batch(agent))
    expected = {
        ("critic", "online.critic.q1.0.weight"): 0.003,
        ("critic", "online.encoder.convolutions.0.weight"): 0.003,
        ("critic", "online.head.0.weight"): 0.003,
        ("actor", "actor.mlp.0.weight"): 0.02,
        ("actor", "actor_head.0.weight"): 0.02,
        ("alpha", "log_alpha"): 0.0004,
        ("encoder+own", "online.encoder.convolutions.0.weight"): times * 0.0007,
        ("encoder+own", "online.head.0.weight"): times * 0.0007,
    }
    objective = next(name for name in names_of(agent, "online.encoder.objective."))
    expected["encoder+own", objective] = 0.0007
    for (label, name), length in expected.items():
        assert found[label][name] == pytest.approx(length, rel=0.02), (label, name)


def test_optimisers_betas_and_weight_decay():
    agent = make(SACAE, beta=0.8, alpha_beta=0.6)
    betas = {name: optimiser.beta for name, optimiser in agent.optimisers.items()}
    assert betas == {"critic": 0.8, "actor": 0.8, "alpha": 0.6, "encoder": 0.9, "own": 0.9}
    decays = {name: optimiser.weight_decay for name, optimiser in agent.optimisers.items()}
    assert decays == {**dict.fromkeys(betas, 0.0), "own": 1e-7}


@pytest.mark.parametrize("cls", [SAC, CURL, SACAE])
def test_steps_are_adams(cls, monkeypatch):
    """A plain Adam in float64, on copies in the usual memory format, given the same gradients."""
    agent = make(cls, critic_lr=3e-3, actor_lr=3e-3, actor_every=1)
    copies, adams, order = {}, {}, {}
    for name, optimiser in agent.optimisers.items():
        order[name] = optimiser.parameters
        for p in order[name]:
            if id(p) not in copies:
                copies[id(p)] = p.detach().double().contiguous().requires_grad_()
        adams[name] = torch.optim.Adam(
            [copies[id(p)] for p in order[name]],
            lr=optimiser.lr,
            betas=(optimiser.beta, 0.999),
            weight_decay=optimiser.weight_decay,
            foreach=False,
        )
    original = agent.step

    def step(loss, *names):
        for p in agent.parameters():
            assert p.grad is None  # nothing is left over from another loss
        parameters = list({id(p): p for name in names for p in order[name]}.values())
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
            copies[id(p)].grad = g.double().contiguous()
        for name in names:
            adams[name].step()
        original(loss, *names)

    monkeypatch.setattr(agent, "step", step)
    for i in range(4):
        agent.learn(some_batch(agent, seed=i))
    for parameters in order.values():
        for p in parameters:
            torch.testing.assert_close(p.detach().double(), copies[id(p)].detach(), rtol=1e-4, atol=1e-5)


def test_moments_of_dead_units_leave_the_denormals():
    """By itself a dead unit's first moment sticks at the smallest numbers, which are slow."""
    agent = make(SAC)
    dead = agent.online["critic"].q1[2]
    with torch.no_grad():
        dead.bias.fill_(-1e6)  # no state reaches it: no gradient
    agent.learn(some_batch(agent))
    critic = agent.optimisers["critic"]
    (at,) = (i for i, p in enumerate(critic.parameters) if p is dead.weight)
    moment, other = critic.averages[at], critic.squares[at]
    moment.fill_(1e-38)
    other.fill_(1e-30)
    for i in range(1, 99):
        agent.learn(some_batch(agent, seed=i))
    assert 0 < moment.max() < torch.finfo(torch.float32).tiny
    agent.learn(some_batch(agent, seed=99))
    assert agent.updates == 100
    assert moment.count_nonzero() == 0
    torch.testing.assert_close(other, torch.full_like(other, 1e-30 * 0.999**99), rtol=1e-4, atol=0.0)


def test_gradients_of_another_memory_format_are_put_in_order():
    """torch's fused Adam goes through memory: a gradient must lie as its parameter does."""
    agent = make(RAD, critic_lr=0.5)
    weight = agent.pixels.convolutions[0].weight
    assert not weight.is_contiguous()
    pull = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    before = weight.detach().clone()

    class Pull(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return (w * pull).sum()

        @staticmethod
        def backward(ctx, g):
            return g * pull  # contiguous, unlike the weight

    others = [p for p in agent.optimisers["critic"].parameters if p is not weight]
    loss = Pull.apply(weight) + 0 * sum(p.sum() for p in others)
    agent.step(loss, "critic")
    torch.testing.assert_close(weight.detach() - before, -0.5 * pull.sign(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cls", [SAC, CURL])
def test_targets_are_moving_averages(cls):
    agent = shaken(make(cls, critic_tau=0.2, encoder_tau=0.03))
    before = {name: p.double().numpy() for name, p in values(agent).items()}
    agent.move_targets()
    count = 0
    for name, p in agent.named_parameters():
        if name.startswith("target."):
            old, online = before[name], before["online." + name.removeprefix("target.")]
            tau = 0.2 if name.startswith("target.critic.") else 0.03
            assert np.abs(old - online).max() > 0.01
            np.testing.assert_allclose(
                p.detach().double().numpy(), (1 - tau) * old + tau * online, rtol=1e-4, atol=1e-6
            )
            count += 1
        else:
            assert np.array_equal(p.detach().double().numpy(), before[name])
    assert count == (12 if cls is SAC else 21)


def test_targets_begin_as_the_networks():
    agent = make(CURL)
    pairs = list(zip(agent.target.parameters(), agent.online.parameters(), strict=True))
    assert len(pairs) == 21 and all(torch.equal(a, b) for a, b in pairs)
    assert not any(a is b or a.requires_grad for a, b in pairs)
    assert not torch.equal(agent.actor_head[0].weight, agent.online["head"][0].weight)
    assert not torch.equal(agent.online["critic"].q1[0].weight, agent.online["critic"].q2[0].weight)


def test_linear_layers_are_orthogonal_and_seeds_decide():
    agent, again, other = make(seed=1), make(seed=1), make(seed=2)
    for module in (agent.actor.mlp, agent.online["critic"].q1, agent.online["critic"].q2):
        for layer in (m for m in module if isinstance(m, nn.Linear)):
            w = layer.weight.detach().double()
            gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
            torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-5)
            assert not layer.bias.any()
    assert not moved(values(agent), values(again))
    assert {n for n in values(agent) if n.endswith("weight")} == moved(values(agent), values(other))
    assert agent.alpha.item() == pytest.approx(0.1)


# ---- when it learns


@pytest.mark.parametrize(
    ("slots", "init", "per", "catch_up", "expected"),
    [
        (1, 4, 1, False, [0, 0, 0, 1, 2, 3]),
        (1, 4, 3, False, [0, 0, 0, 3, 6, 9]),
        (3, 7, 2, False, [0, 0, 6, 12, 18, 24]),
        (1, 4, 1, True, [0, 0, 0, 4, 5, 6]),
        (3, 7, 1, True, [0, 0, 7, 10, 13, 16]),
        (1, 0, 1, False, [1, 2, 3, 4, 5, 6]),
        (1, 1, 1, True, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_updates_begin_after_the_random_steps(slots, init, per, catch_up, expected):
    agent = make(init_steps=init, updates_per_step=per, catch_up=catch_up, slots=slots)
    rng, counts = np.random.default_rng(0), []
    learn, calls = agent.learn, []
    agent.learn = lambda batch, **whole: calls.append(len(batch.rewards)) or learn(batch, **whole)
    for k in range(6):
        metrics = agent.update(step_of(agent, rng, t=k))
        counts.append(agent.updates)
        assert bool(metrics) == (agent.updates > 0)
        assert all(map(math.isfinite, metrics.values()))
    assert counts == expected == [*counts[:-1], len(calls)] and set(calls) == {8}
    assert agent.seen == 6 * slots


def test_catching_up_moves_actor_and_targets_every_time(monkeypatch):
    agent = make(init_steps=4, catch_up=True, actor_every=2, target_every=2)
    rng, moves = np.random.default_rng(0), []
    step, move = agent.step, agent.move_targets
    monkeypatch.setattr(agent, "step", lambda loss, *names: moves.extend(names) or step(loss, *names))
    monkeypatch.setattr(agent, "move_targets", lambda: moves.append("targets") or move())
    expected = [0, 0, 0, 4, 5, 5, 6]
    for k, count in enumerate(expected):
        agent.update(step_of(agent, rng, t=k))
        assert [moves.count(name) for name in ("actor", "alpha", "targets")] == [count] * 3
    assert moves.count("critic") == agent.updates == 7


def test_actions_are_uniform_before_learning():
    agent = make(init_steps=5)
    rng = np.random.default_rng(0)
    count = 4000
    observed = rng.standard_normal((count, STATE)).astype(np.float32)
    noise = rng.standard_normal((count, ACTION)).astype(np.float32)
    drawn = agent.act(observed, noise)
    for actions in drawn.T:  # Kolmogorov and Smirnov: below 1.63 / sqrt(n) in 99 % of uniform samples
        ranks = (np.sort(actions) + 1) / 2
        gaps = np.maximum(np.arange(1, count + 1) / count - ranks, ranks - np.arange(count) / count)
        assert gaps.max() < 1.63 / math.sqrt(count) and np.abs(actions).max() <= 1
    assert (np.diff(drawn[np.argsort(noise[:, 0]), 0]) >= 0).all()  # the noise's own quantiles
    assert np.array_equal(drawn, agent.act(observed[::-1], noise))  # whatever is seen

    mu, log_std = gaussian(weights_of(agent.actor), observed.astype(float), -5, 2)
    np.testing.assert_allclose(agent.act(observed, None), np.tanh(mu), rtol=1e-4, atol=1e-5)
    for k in range(5):
        assert np.array_equal(agent.act(observed, noise), drawn) == (k < 5)
        agent.update(step_of(agent, rng, t=k))
    mu, log_std = gaussian(weights_of(agent.actor), observed.astype(float), -5, 2)
    expected = np.tanh(mu + np.exp(log_std) * noise)
    np.testing.assert_allclose(agent.act(observed, noise), expected, rtol=1e-3, atol=1e-4)
    assert agent.act(observed, noise).dtype == np.float32


@pytest.mark.parametrize("cls", PIXELS)
def test_acting_takes_the_centre_of_the_stacked_pictures(cls):
    agent = shaken(make(cls, init_steps=0, encoder={"stack": 2}, cameras=2), scale=0.2)
    rng = np.random.default_rng(0)
    obs = [some_obs(agent, 3, rng) for _ in range(2)]
    rows = np.concatenate([agent.observe(o) for o in obs], axis=1)
    newest = [o.frames[..., 6:] for o in obs]
    pictures = torch.as_tensor(np.concatenate(newest, axis=-1))
    views = pictures if cls is SACAE else pictures[:, 2:18, 2:18]
    code = codes(agent.pixels.convolutions, agent.actor_head, views, cls is SACAE)
    x = np.hstack((code, obs[1].state))
    mu, log_std = gaussian(weights_of(agent.actor), x, -10, 2)
    noise = rng.standard_normal((3, ACTION)).astype(np.float32)
    np.testing.assert_allclose(agent.act(rows, None), np.tanh(mu), rtol=1e-3, atol=1e-4)
    expected = np.tanh(mu + np.exp(log_std) * noise)
    np.testing.assert_allclose(agent.act(rows, noise), expected, rtol=1e-3, atol=1e-4)


# ---- it learns

FAST = {"batch": 32, "actor_lr": 1e-2, "critic_lr": 1e-2, "replay": 1000, "init_steps": 60}


def play(agent, steps, reward, end):
    """Episodes of one step in a state that says nothing."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        obs = np.ones((1, 1), np.float32)
        actions = agent.act(obs, rng.standard_normal((1, 1)).astype(np.float32))
        one = rollout_of(obs, obs, [1], actions=actions, rewards=[reward(float(actions[0, 0]))])
        yes, no = np.ones(1, bool), np.zeros(1, bool)
        ends = {"terminated": no, "truncated": no} | {end: yes}
        metrics = agent.update(dataclasses.replace(one, **ends))
    return metrics


def test_a_bandit_is_solved():
    agent = make(state_dim=1, action_dim=1, alpha_lr=1e-2, **FAST)
    metrics = play(agent, 600, lambda a: -4 * (a - 0.5) ** 2, "terminated")
    best = agent.act(np.ones((1, 1), np.float32), None).item()
    assert best == pytest.approx(0.5, abs=0.12)
    x, grid = torch.ones(4, 1), torch.tensor([[0.0], [0.3], [0.5], [0.8]])
    with torch.no_grad():
        q = torch.minimum(*agent.online["critic"](x, grid))
    np.testing.assert_allclose(q, -4 * (grid[:, 0] - 0.5) ** 2, atol=0.25)  # ends: nothing follows
    assert metrics["sac/entropy"] == pytest.approx(-1, abs=0.35)  # the temperature's target
    assert 0.01 < agent.alpha < 0.09


@pytest.mark.parametrize(("end", "value"), [("terminated", 1.0), ("truncated", 2.0)])
def test_values_go_on_beyond_time_limits_only(end, value):
    """1 for every step: 1 if it ends, 1 / (1 - gamma) if it is only cut (the entropy weighs 1e-3)."""
    agent = make(state_dim=1, action_dim=1, gamma=0.5, critic_tau=0.1, init_alpha=1e-3, **FAST)
    metrics = play(agent, 450, lambda a: 1.0, end)
    assert metrics["sac/q"] == pytest.approx(value, abs=0.1)
    assert metrics["sac/batch_reward"] == 1


# ---- the published settings

TABLE = {  # FACTS' section 3.2: pytorch_sac, RAD and CURL, SAC+AE
    "replay": (1_000_000, 100_000, 1_000_000),
    "init_steps": (5000, 1000, 1000),
    "catch_up": (False, False, True),
    "updates_per_step": (1, 1, 1),
    "batch": (1024, 128, 128),
    "hidden": ((1024, 1024),) * 3,
    "critic_lr": (1e-4, 1e-3, 1e-3),
    "actor_lr": (1e-4, 1e-3, 1e-3),
    "beta": (0.9, 0.9, 0.9),
    "critic_tau": (0.005, 0.01, 0.01),
    "target_every": (2, 2, 2),
    "actor_every": (1, 2, 2),
    "log_std_min": (-5, -10, -10),
    "log_std_max": (2, 2, 2),
    "log_prob": ("stable", "clipped", "clipped"),
    "init_alpha": (0.1, 0.1, 0.1),
    "alpha_lr": (1e-4, 1e-4, 1e-4),
    "alpha_beta": (0.9, 0.5, 0.5),
    "gamma": (0.99, 0.99, 0.99),
}


@pytest.mark.parametrize(("cls", "column"), [(SAC, 0), (RAD, 1), (CURL, 1), (SACAE, 2), (FERM, 1)])
def test_defaults_are_the_published_settings(cls, column):
    config = cls.Config()
    expected = {name: row[column] for name, row in TABLE.items()}
    assert {name: getattr(config, name) for name in TABLE} == expected
    if cls is not SAC:
        assert config.encoder_tau == 0.05
    losses = {SAC: "always", RAD: "never", CURL: "always", SACAE: "always", FERM: "warm_start"}
    assert config.encoder_loss == losses[cls]
    rest = {"encoder_tau", "encoder_loss", "stack", "warm_start_updates", "bc_epochs", "bc_convolutions"}
    assert set(cls.Config.model_fields) - set(TABLE) - cls.Config.later <= rest  # no setting was overlooked
    assert not set(ginfile.flatten(config)) & cls.Config.later  # and what came later is not in the published ones
    assert config.stack == 1


def test_ferms_own_defaults():
    config = FERM.Config()
    assert (config.warm_start_updates, config.bc_epochs, config.bc_convolutions) == (1600, 0, True)
    assert FERM.demos == "required" and SAC.demos == RAD.demos == "none"


@pytest.mark.parametrize("cls", PIXELS)
def test_losses_in_mixed_precision_are_the_same_up_to_rounding(cls):
    found = []
    for precision in ("fp32", "bf16"):
        # Adam's first steps are as long as its rate, whatever the gradient: near zero, rounding turns them.
        agent = shaken(make(cls, precision=precision, critic_lr=1e-6, actor_lr=1e-6))
        assert [m["encoder"].mixed for m in (agent.online, agent.target)] == [precision == "bf16"] * 2
        metrics = agent.learn(some_batch(agent))
        if cls is FERM:
            raw = agent.split(some_batch(agent).rows[:, :-1])
            metrics |= agent.learn_encoder(agent.augmented(raw)[0], raw, "now")
        assert {p.dtype for p in agent.parameters()} == {torch.float32}
        found.append(metrics)
    exact, mixed = found
    assert exact.keys() == mixed.keys() and exact != mixed
    for name, value in exact.items():
        assert mixed[name] == pytest.approx(value, rel=0.03, abs=0.01), name


def test_a_diverged_encoder_is_told():
    """In bf16 the policy would go on with codes of zeros."""
    agent = make(RAD, precision="bf16", init_steps=1)
    with torch.no_grad():
        agent.pixels.trunk_parameters()[0][0, 0, 1, 1] = math.nan
    with pytest.raises(UserError, match=r"RAD diverged after .* updates: the encoder's weights"):
        agent.update(some_rollout(agent))


def test_agents_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    agent = make(CURL)
    agent.learn(some_batch(agent))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(copy.deepcopy(agent).optimisers) == 5
