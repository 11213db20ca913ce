"""NPG, DAPG and BC: what a step, a value fit and cloning do, and that agents keep their promises."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydantic
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from rrl.agents import npg
from rrl.agents.natural_gradient import Linearised
from rrl.agents.networks import ValueNet
from rrl.agents.npg import BC, DAPG, NPG
from rrl.encoders.base import Encoder, Inference
from rrl.envs.base import FrameRequest
from rrl.registry import UserError
from rrl.rollout.data import Obs, Rollout

STATE, FEATURES, ACTION = 5, 3, 2
OBS = FEATURES + STATE
SMALL: dict[str, Any] = {"policy_hidden": (8,)}
SMALL_RL: dict[str, Any] = SMALL | {"value_hidden": (8,), "value_batch": 16, "trajectories": 4}


class Colours(Encoder):
    """A frozen encoder whose features are the mean colours."""

    class Config(Encoder.Config):
        def frames(self) -> FrameRequest:
            return FrameRequest(size=4, crop_from=4)

    def __init__(self, learns: bool = False) -> None:
        super().__init__(Colours.Config(), cameras=1)
        self.dim = FEATURES
        self.gain = nn.Parameter(torch.ones(FEATURES), requires_grad=learns)

    def forward(self, frames: Tensor) -> Tensor:
        return frames.float().mean((1, 2)) / 255 * self.gain

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        return self  # a module: it must not become part of the agent


A = TypeVar("A", BC, NPG, DAPG)


def make(
    cls: type[A],
    *,
    seed: int = 0,
    encoder: Encoder | None = None,
    state_dim: int = STATE,
    action_dim: int = ACTION,
    **config: Any,
) -> A:
    small = SMALL if cls is BC else SMALL_RL
    return cls(
        cls.Config(**(small | config)),
        encoder=encoder or Colours(),
        state_dim=state_dim,
        action_dim=action_dim,
        seed=seed,
        inference=Inference(),
    )


def make_rollout(
    lengths: Sequence[int] = (30, 50, 20, 50),
    seed: int = 0,
    n: int = OBS,
    m: int = ACTION,
    scale: float = 1.0,
) -> Rollout:
    """Random episodes; those shorter than the longest end in a terminal state."""
    rng = np.random.default_rng(seed)
    steps = sum(lengths)
    t = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    last = np.append(t[1:] == 0, True)
    longest = t == max(lengths) - 1
    return Rollout(
        obs=(scale * rng.standard_normal((steps, n))).astype(np.float32),
        actions=rng.standard_normal((steps, m)).astype(np.float32),
        rewards=rng.standard_normal(steps),
        flags={},
        episode=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        t=t,
        terminated=last & ~longest,
        truncated=last & longest,
        final_obs=rng.standard_normal((len(lengths), n)).astype(np.float32),
    )


# --- the value network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal_at_horizon", [True, False])
def test_returns_and_advantages_equal_their_definitions(terminal_at_horizon: bool) -> None:
    gamma, lam = 0.9, 0.7
    agent = make(NPG, gamma=gamma, gae_lambda=lam, terminal_at_horizon=terminal_at_horizon)
    rollout = make_rollout((5, 12, 1, 12, 7))

    def value(obs: np.ndarray, t: int) -> float:
        o = np.clip(obs, -10, 10) / 10
        features = np.concatenate((o, [(t / 1000) ** k for k in (1, 2, 3, 4)])).astype(np.float32)
        return agent.value(torch.as_tensor(features)[None]).item()

    returns, advantages = [], []
    for e in range(rollout.episodes):
        (rows,) = np.nonzero(rollout.episode == e)
        length = len(rows)
        bootstrap = not terminal_at_horizon and rollout.truncated[rows[-1]]
        v = [value(rollout.obs[i], rollout.t[i]) for i in rows]
        v.append(value(rollout.final_obs[e], length) if bootstrap else 0.0)
        r = rollout.rewards[rows]
        delta = [r[i] + gamma * v[i + 1] - v[i] for i in range(length)]
        for i in range(length):
            rest = range(length - i)
            returns.append(sum(gamma**k * r[i + k] for k in rest) + gamma ** (length - i) * v[length])
            advantages.append(sum((gamma * lam) ** k * delta[i + k] for k in rest))
    got = agent.returns_and_advantages(rollout)
    np.testing.assert_allclose(got[0], returns, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], advantages, rtol=1e-5, atol=1e-6)


def test_value_features_clip_observations_and_append_powers_of_time() -> None:
    obs = torch.tensor([[-30.0, 5.0], [2.0, 11.0]])
    features = ValueNet.features(obs, np.array([0, 199], np.int32))
    expected = [[-1, 0.5, 0, 0, 0, 0], [0.2, 1, 0.199, 0.199**2, 0.199**3, 0.199**4]]
    torch.testing.assert_close(features, torch.tensor(expected))


def test_value_fit_is_adam_with_coupled_decay_over_all_but_the_last_full_batch() -> None:
    agent = make(NPG, value_batch=64, value_epochs=2, value_weight_decay=0.1)
    features = torch.randn(64 * 4 + 10, OBS + 4, generator=torch.Generator().manual_seed(5))
    returns = features.sum(1)
    reference = ValueNet(OBS, (8,), torch.Generator())
    reference.load_state_dict(agent.value.state_dict())
    weights, moments = list(reference.parameters()), [(0.0, 0.0)] * 4
    generator = torch.Generator()
    generator.set_state(agent.generator.get_state())
    count = 0
    for _ in range(2):
        order = torch.randperm(len(features), generator=generator)
        for i in range(3):  # floor(266 / 64) - 1
            count += 1
            batch = order[64 * i : 64 * i + 64]
            loss = (reference(features[batch]) - returns[batch]).square().mean()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for j, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                    g = g + 0.1 * w
                    m, v = moments[j]
                    moments[j] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()  # type: ignore[assignment]
                    w -= 1e-3 * (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)  # type: ignore[attr-defined]

    def error(net: ValueNet) -> float:
        return float((returns - net(features).detach()).square().sum() / returns.square().sum())

    before = error(agent.value)
    metrics = agent.fit_value(features, returns)
    for got, expected in zip(agent.value.parameters(), weights, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    assert agent.value_optimiser.steps[0] == 6
    assert metrics["value/error_before"] == pytest.approx(before)
    assert metrics["value/error_after"] == pytest.approx(error(agent.value))
    assert metrics["value/error_after"] < before


def test_value_fit_says_when_there_is_too_little_data() -> None:
    agent = make(NPG, value_batch=64)
    with pytest.warns(UserWarning, match="100 samples are not two batches of 64"):
        agent.fit_value(torch.zeros(100, OBS + 4), torch.zeros(100))


# --- the policy step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [NPG, DAPG])
def test_one_step_moves_by_half_the_step_size_in_kl(cls: type[NPG]) -> None:
    n, m, rng = 40, 24, np.random.default_rng(0)
    agent = make(cls, policy_hidden=(32, 32), state_dim=n - FEATURES, action_dim=m)
    mapping = 0.05 * rng.standard_normal((n, m))
    demos = make_rollout((100,) * 20, seed=1, n=n, m=m)
    demos.actions[:] = demos.obs @ mapping + 0.1 * demos.actions
    agent.warm_start(demos if cls is DAPG else None)
    rollout = make_rollout((50,) * 40, n=n, m=m)
    rollout.actions[:] = agent.act(rollout.obs, rng.standard_normal(rollout.actions.shape, dtype=np.float32))
    rollout.rewards[:] = -np.square(rollout.actions - rollout.obs @ mapping).sum(1)

    obs = torch.as_tensor(rollout.obs)
    old = Normal(agent.policy.mean(obs).detach(), agent.policy.log_std.detach().exp())
    metrics = agent.update(rollout)
    new = Normal(agent.policy.mean(obs), agent.policy.log_std.exp())
    assert 0.020 < metrics["policy/kl"] < 0.030
    assert metrics["policy/kl"] == pytest.approx(kl_divergence(old, new).sum(-1).mean().item(), rel=1e-3)
    assert metrics["policy/surrogate_improvement"] > 0
    assert metrics["policy/alpha"] == pytest.approx(math.sqrt(0.05 / metrics["policy/g_dot_x"]))
    assert metrics["policy/std"] == pytest.approx(new.stddev[0].mean().item())


def surrogate_gradient(agent: NPG, rollout: Rollout) -> Tensor:
    advantages = torch.as_tensor(npg.whiten(rollout.rewards))
    here = Linearised(agent.policy, torch.as_tensor(rollout.obs))
    return agent.surrogate_gradient(here, torch.as_tensor(rollout.actions), advantages)


def test_demonstrations_without_weight_leave_a_hundredth_of_npgs_gradient() -> None:
    dapg, plain = make(DAPG, lam_0=0.1, lam_1=0.0), make(NPG)
    dapg.remember(make_rollout(seed=1))
    dapg.updates = 1  # w_1 = 0.1 * 0
    expected = 0.01 * surrogate_gradient(plain, make_rollout())
    assert (surrogate_gradient(dapg, make_rollout()) - expected).norm() < 1e-5 * expected.norm()


def test_demonstrations_are_summed_and_divided_by_the_rollout_samples() -> None:
    agent, demos, rollout = make(DAPG), make_rollout((20, 30), seed=1), make_rollout()
    agent.remember(demos)
    once = surrogate_gradient(agent, rollout)
    x, actions = torch.as_tensor(demos.obs), torch.as_tensor(demos.actions)
    of_demos = 0.01 * 0.01 / 150 * Linearised(agent.policy, x).policy_gradient(actions, torch.ones(50))
    agent.remember(twice(demos))
    doubled = surrogate_gradient(agent, rollout)
    assert (doubled - once - of_demos).norm() < 1e-4 * of_demos.norm()


def twice(demos: Rollout) -> Rollout:
    joined = {k: np.concatenate((getattr(demos, k),) * 2) for k in ("obs", "actions", "rewards", "t", "final_obs")}
    ends = {k: np.concatenate((getattr(demos, k),) * 2) for k in ("terminated", "truncated")}
    episode = np.concatenate((demos.episode, demos.episode + demos.episodes))
    return Rollout(**joined, **ends, flags={}, episode=episode)


def test_dapg_without_lam_0_takes_exactly_npgs_step() -> None:
    dapg, plain, rollout = make(DAPG, lam_0=0.0), make(NPG), make_rollout()
    dapg.warm_start(make_rollout(seed=1))
    plain.load_policy_state(dapg.policy_state())
    metrics, expected = dapg.update(rollout), plain.update(rollout)
    assert torch.equal(dapg.policy.flat(), plain.policy.flat())
    assert metrics["policy/alpha"] == expected["policy/alpha"]
    assert metrics["demos/weight"] == 0


def test_demo_weight_decays_with_every_update() -> None:
    agent = make(DAPG)
    agent.warm_start(make_rollout(seed=1))
    weights = [agent.update(make_rollout(seed=k))["demos/weight"] for k in range(3)]
    assert weights == pytest.approx([0.01, 0.0095, 0.009025])


def test_no_advantage_means_no_step_and_a_warning() -> None:
    agent, rollout = make(NPG, cg_iterations=3), make_rollout()
    before = agent.policy.flat()
    with pytest.warns(UserWarning, match="no policy step"):
        obs, actions = torch.as_tensor(rollout.obs), torch.as_tensor(rollout.actions)
        metrics = agent.step_policy(obs, actions, np.zeros(150))
    assert torch.equal(agent.policy.flat(), before)
    assert metrics["policy/alpha"] == metrics["policy/kl"] == 0


def test_rewards_that_are_not_numbers_are_an_error_before_anything_is_changed() -> None:
    agent, rollout = make(NPG), make_rollout()
    rollout.rewards[3] = np.nan
    before = agent.policy.flat()
    with pytest.raises(UserError, match=r"NPG diverged in update 1: .*gradient is not finite .*\n.*NPG.step_size"):
        agent.update(rollout)
    assert torch.equal(agent.policy.flat(), before)


def test_npg_solves_a_bandit() -> None:
    rng = np.random.default_rng(0)
    agent = make(NPG, policy_hidden=(16,), value_batch=32)
    mapping = rng.standard_normal((OBS, ACTION)).astype(np.float32) / math.sqrt(OBS)
    episodes = 300

    def play(noise: bool) -> Rollout:
        obs = rng.standard_normal((episodes, OBS), dtype=np.float32)
        actions = agent.act(obs, rng.standard_normal((episodes, ACTION), dtype=np.float32) if noise else None)
        ones = np.ones(episodes, bool)
        return Rollout(
            obs=obs,
            actions=actions,
            rewards=-np.square(actions - obs @ mapping).sum(1, dtype=np.float64),
            flags={},
            episode=np.arange(episodes, dtype=np.int32),
            t=np.zeros(episodes, np.int32),
            terminated=ones,
            truncated=~ones,
            final_obs=obs,
        )

    before = play(noise=False).rewards.mean()
    for _ in range(25):
        agent.update(play(noise=True))
    assert before < -1
    assert play(noise=False).rewards.mean() > 0.1 * before
    assert agent.policy.log_std.mean() < -0.3


# --- cloning -------------------------------------------------------------------------------------------


def linear_demos(seed: int = 0) -> Rollout:
    """Demonstrations that a linear policy gave; one feature never varies and one action hardly does."""
    demos = make_rollout((100,) * 20, seed)
    mapping = np.random.default_rng(7).standard_normal((OBS, ACTION)) * [1, 0.003]
    demos.obs[:] = 3 * demos.obs + 1
    demos.obs[:, 0] = 4
    demos.actions[:] = demos.obs @ mapping
    return demos


@pytest.mark.parametrize("cls", [BC, DAPG])
def test_cloning_sets_transforms_and_std_and_fits_the_mean(cls: type[BC]) -> None:
    agent, demos = make(cls, policy_hidden=(32,), in_scale_floor=0.5, bc_epochs=20), linear_demos()
    metrics = agent.warm_start(demos)
    policy, std = agent.policy, demos.obs.std(0)
    np.testing.assert_allclose(policy.in_shift, demos.obs.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.in_scale, np.maximum(std, 0.5 * std.mean()), rtol=1e-4)
    assert policy.in_scale[0] == pytest.approx(0.5 * std.mean(), rel=1e-4)
    np.testing.assert_allclose(policy.out_shift, demos.actions.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.out_scale, demos.actions.std(0), rtol=1e-4)
    expected = np.maximum(np.log(demos.actions.std(0)), -3)
    np.testing.assert_allclose(policy.log_std.detach(), expected, rtol=1e-4)
    assert expected[1] == -3 < expected[0]
    errors = np.square(agent.act(demos.obs, None) - demos.actions).mean()
    assert metrics["bc/loss_after"] == pytest.approx(errors, rel=1e-3)
    assert metrics["bc/loss_before"] == pytest.approx(demos.actions.var(0).mean(), rel=0.1)
    assert metrics["bc/loss_after"] < 0.05 * metrics["bc/loss_before"]


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_cloning_equals_a_plain_loop_with_replacement(noise: float) -> None:
    agent, demos = make(BC, bc_epochs=2, bc_lr=3e-3, bc_noise=noise), make_rollout((50, 50))
    reference = make(BC)
    reference.load_policy_state(agent.policy_state())
    agent.warm_start(demos)
    policy = reference.policy
    for name in ("in_shift", "in_scale", "out_shift", "out_scale", "log_std"):
        getattr(policy, name).data.copy_(getattr(agent.policy, name))
    optimiser = torch.optim.Adam(policy.mlp.parameters(), lr=3e-3, fused=False, foreach=False)
    obs, actions = torch.as_tensor(demos.obs), torch.as_tensor(demos.actions)
    for batch in torch.randint(100, (2 * 3, 32), generator=reference.generator):
        optimiser.zero_grad()
        seen = policy.standardise(obs[batch])
        if noise:
            seen = seen + noise * torch.randn(seen.shape, generator=reference.generator)
        (policy(seen) - actions[batch]).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(agent.policy.flat(), policy.flat(), rtol=1e-4, atol=1e-6)


def test_without_a_floor_the_input_scales_are_the_demonstrations_own() -> None:
    agent = make(BC, in_scale_floor=0.0, bc_epochs=0)
    agent.warm_start(linear_demos())
    assert agent.policy.in_scale[0] == 0
    assert np.isfinite(agent.act(linear_demos().obs[:3], None)).all()


def test_initial_std_factor_scales_what_cloning_set_but_not_below_the_minimum() -> None:
    demos = linear_demos()
    faithful, half, double = (make(DAPG, init_std_factor=f, bc_epochs=0) for f in (1.0, 0.5, 2.0))
    for agent in (faithful, half, double):
        agent.warm_start(demos)
    std, floor = demos.actions[:, 0].std(), math.exp(-3)
    expected = [[std, floor], [std / 2, floor], [2 * std, 2 * floor]]
    for agent, stds in zip((faithful, half, double), expected, strict=True):
        np.testing.assert_allclose(agent.policy.log_std.exp().detach(), stds, rtol=1e-4)
    assert make(NPG, init_std_factor=0.5).policy.log_std.exp().tolist() == pytest.approx([0.5, 0.5])


# --- agents --------------------------------------------------------------------------------------------


def test_observe_concatenates_features_and_state() -> None:
    agent, rng = make(BC), np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    state = rng.standard_normal((6, STATE)).astype(np.float32)
    observed = agent.observe(Obs(frames, state))
    assert observed.dtype == np.float32
    np.testing.assert_allclose(observed[:, :FEATURES], frames.mean((1, 2)) / 255, rtol=1e-5)
    assert np.array_equal(observed[:, FEATURES:], state)
    with pytest.raises(ValueError, match="needs frames"):
        agent.observe(Obs(None, state))


def test_without_features_the_observation_is_a_copy_of_the_state() -> None:
    encoder = Colours()
    encoder.dim = 0
    agent, state = make(NPG, encoder=encoder), np.ones((2, STATE), np.float32)
    observed = agent.observe(Obs(None, state))
    assert agent.act(observed, None).shape == (2, ACTION)
    state[:] = 0
    assert observed.all()


def test_act_adds_scaled_noise_and_does_not_clip() -> None:
    agent, rng = make(NPG, init_std_factor=3.0), np.random.default_rng(0)
    observed = rng.standard_normal((4, OBS)).astype(np.float32)
    noise = rng.standard_normal((4, ACTION)).astype(np.float32)
    mean, action = agent.act(observed, None), agent.act(observed, noise)
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, mean + 3 * noise, rtol=1e-5, atol=1e-6)
    assert abs(action).max() > 1


def test_the_encoder_is_no_part_of_the_agent() -> None:
    agent = make(DAPG)
    assert {name.split(".")[0] for name in agent.state_dict()} == {"policy", "value"}
    assert [name for name, _ in agent.named_children()] == ["policy", "value"]


@pytest.mark.parametrize("cls", [BC, NPG, DAPG])
def test_a_learning_encoder_is_refused(cls: type[BC]) -> None:
    with pytest.raises(UserError, match=f"{cls.__name__} can't train Colours"):
        make(cls, encoder=Colours(learns=True))


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(UserError, match="iterations = 0"):
        make(BC).update(make_rollout())
    for cls in (BC, DAPG):
        with pytest.raises(UserError, match="needs demonstrations"):
            make(cls).warm_start(None)
    with pytest.raises(UserError, match="learns without demonstrations"):
        make(NPG).warm_start(make_rollout())
    assert make(NPG).warm_start(None) == {}
    with pytest.raises(UserError, match="to update"):
        make(DAPG).update(make_rollout())
    with pytest.raises(UserError, match=f"have 4 observation and 2 action dimensions.* needs {OBS} and 2"):
        make(BC).warm_start(make_rollout(n=4))
    with pytest.raises(UserError, match=r"bc_batch = 32 demonstration steps, got 20"):
        make(BC).warm_start(make_rollout((20,)))


@pytest.mark.parametrize("cls", [NPG, DAPG])
def test_a_restored_agent_continues_bit_for_bit(cls: type[NPG], tmp_path: Path) -> None:
    demos = make_rollout(seed=9)
    agent, resumed = make(cls, seed=1), make(cls, seed=2)
    agent.warm_start(demos if cls is DAPG else None)
    resumed.update(make_rollout(seed=8)) if cls is NPG else resumed.remember(demos)
    for k in range(3):
        if k == 1:
            tensors, values = agent.snapshot()
            save_file(tensors, tmp_path / "snapshot.safetensors")  # refuses tensors that share memory
            resumed.restore(load_file(tmp_path / "snapshot.safetensors"), json.loads(json.dumps(values)))
        metrics = agent.update(make_rollout(seed=k))
        if k >= 1:
            again = resumed.update(make_rollout(seed=k))
            assert {k: v for k, v in metrics.items() if "time" not in k} == {
                k: v for k, v in again.items() if "time" not in k
            }
    (expected, counters), (got, again_counters) = agent.snapshot(), resumed.snapshot()
    assert counters == again_counters == {"updates": 3}
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    saved = load_file(tmp_path / "snapshot.safetensors")
    assert all(torch.equal(tensors[name], saved[name]) for name in saved), "a snapshot changed under training"
    assert not torch.equal(saved["policy.mlp.0.weight"], got["policy.mlp.0.weight"])


def test_restoring_a_snapshot_from_before_the_first_update_forgets_the_optimiser() -> None:
    agent = make(NPG)
    tensors, values = agent.snapshot()
    first = agent.update(make_rollout())
    agent.restore(tensors, values)
    assert not any(t.any() for t in agent.value_optimiser.state().values())
    again = agent.update(make_rollout())
    assert first["value/error_after"] == again["value/error_after"]


def test_a_snapshot_does_not_follow_what_was_restored_from_it() -> None:
    agent, resumed = make(NPG), make(NPG)
    agent.update(make_rollout())
    tensors, values = agent.snapshot()
    kept = {name: t.clone() for name, t in tensors.items()}
    resumed.restore(tensors, values)
    resumed.update(make_rollout())
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


def test_policy_state_alone_gives_the_same_actions() -> None:
    agent, other = make(BC, seed=1), make(BC, seed=2)
    agent.warm_start(linear_demos())
    observed, noise = make_rollout().obs, make_rollout().actions
    other.load_policy_state(agent.policy_state())
    assert np.array_equal(agent.act(observed, noise), other.act(observed, noise))


def test_global_random_generators_neither_matter_nor_move() -> None:
    def run() -> Tensor:
        agent = make(DAPG, seed=3)
        agent.warm_start(make_rollout(seed=1))
        agent.update(make_rollout())
        return torch.cat([agent.policy.flat(), *(p.detach().reshape(-1) for p in agent.value.parameters())])

    torch.manual_seed(1)
    states = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    first = run()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (repr(np.random.get_state()), random.getstate()) == states[1:]  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(first, run())
    assert not torch.equal(make(NPG, seed=3).policy.flat(), make(NPG, seed=4).policy.flat())


def test_training_keeps_the_callers_thread_count() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make(DAPG).warm_start(make_rollout())
        make(NPG).update(make_rollout())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("cls", [BC, NPG, DAPG])
def test_every_field_is_documented(cls: type[BC]) -> None:
    assert [name for name, field in cls.Config.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trajectories", 0),
        ("policy_hidden", (0,)),
        ("step_size", 0.0),
        ("gamma", 1.01),
        ("gae_lambda", -0.1),
        ("init_std_factor", 0.0),
        ("in_scale_floor", -1.0),
        ("bc_batch", 0),
        ("value_lr", 0.0),
        ("lam_1", 1.5),
    ],
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        DAPG.Config(**{field: value})


def test_settings_live_where_they_matter() -> None:
    assert DAPG.Config().trajectories == 200
    assert not {"bc_lr", "lam_0"} & NPG.Config.model_fields.keys()
    assert not {"trajectories", "gamma"} & BC.Config.model_fields.keys()
    assert make(DAPG, trajectories=7).config.wants().count == 7
    assert BC.Config().wants().count == 0
