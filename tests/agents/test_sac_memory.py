"""What SAC keeps of observations, and what its files hold."""

import numpy as np
import pytest
import torch
from helpers.sac_agents import (
    ACTION,
    STATE,
    Colours,
    gaussian,
    make,
    moved,
    rollout_of,
    shaken,
    some_batch,
    some_obs,
    some_rollout,
    step_of,
    values,
    weights_of,
)

from rrl.agents.rad import CURL, RAD, SACAE
from rrl.agents.sac import SAC
from rrl.registry import UserError
from rrl.rollout.data import Obs
from rrl.rollout.slots import Stack
from rrl.store import checkpoint

# ---- rows of the memory


@pytest.mark.parametrize("state_dim", [0, 5])
@pytest.mark.parametrize("cameras", [1, 2])
def test_pictures_and_state_come_back_from_the_memory(state_dim, cameras):
    """Two episodes of the environment's own stacks; every transition drawn shows them as they were."""
    agent = make(RAD, state_dim=state_dim, cameras=cameras, encoder={"stack": 3}, replay=100)
    rng = np.random.default_rng(0)
    channels = 3 * cameras
    moments = {}
    for lengths in (5, 3):
        stacked = Stack(1, 3)
        shown = []
        for k in range(lengths + 1):
            picture = rng.integers(0, 256, (1, 20, 20, channels), dtype=np.uint8)
            frames = stacked.push(picture, np.array([k == 0]), np.array([k > 0]))
            state = rng.standard_normal((1, state_dim)).astype(np.float32)
            row = agent.observe(Obs(frames, state))
            assert row.shape == (1, 400 * channels + 4 * state_dim) and row.dtype == np.uint8
            assert np.array_equal(row[0, : 400 * channels].reshape(picture.shape[1:]), picture[0])
            assert row[0, 400 * channels :].tobytes() == state.tobytes()
            shown.append((frames[0], state[0], row))
        rewards = rng.standard_normal(lengths)
        moments |= {np.float32(rewards[k]): (shown[k][:2], shown[k + 1][:2]) for k in range(lengths)}
        rows = np.concatenate([row for _, _, row in shown])
        agent.replay.add(rollout_of(rows[:-1], rows[-1:], [lengths], rewards=rewards, rng=rng))
    batch = agent.replay.draw(100, agent.generator)
    assert set(batch.rewards.tolist()) == set(map(float, moments))
    for rows, which in ((batch.rows[:, :-1], 0), (batch.rows[:, 1:], 1)):
        seen = agent.split(rows)
        assert seen.frames.dtype == torch.uint8 and seen.vector.dtype == torch.float32
        for i, r in enumerate(batch.rewards.tolist()):
            frames, state = moments[np.float32(r)][which]
            assert np.array_equal(seen.frames[i], frames) and np.array_equal(seen.vector[i], state)


def test_a_frozen_encoders_features_are_stacked_oldest_first():
    encoder = Colours()
    agent = make(encoder=encoder, stack=3, init_steps=0)
    assert agent.stack == 3 and agent.pixels is None
    assert not any(p is encoder.gain for p in agent.parameters())
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 4, 4, 4, 3), dtype=np.uint8)
    states = rng.standard_normal((3, 4, STATE)).astype(np.float32)
    rows = [agent.observe(Obs(f, s)) for f, s in zip(frames, states, strict=True)]
    features = frames.astype(float).mean((2, 3)) / 255
    expected = np.concatenate([np.hstack((features[k], states[k])) for k in range(3)], axis=1)
    assert rows[0].dtype == np.float32
    vector = agent.split(np.stack(rows, axis=1)).vector
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)
    mu, _ = gaussian(weights_of(agent.actor), expected, -5, 2)
    np.testing.assert_allclose(agent.act(np.concatenate(rows, axis=1), None), np.tanh(mu), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="rendered none"):
        agent.observe(Obs(None, states[0]))
    with pytest.raises(UserError, match="SAC can't train Colours"):
        make(encoder=Colours(learns=True))


def test_critics_see_this_moment_and_targets_the_next(monkeypatch):
    agent = make(CURL, encoder={"stack": 2})
    batch = some_batch(agent)
    raw, kept = {}, {}
    augmented = agent.augmented

    def augmenting(*seen):
        raw["seen"], kept["views"] = seen, augmented(*seen)
        return kept["views"]

    monkeypatch.setattr(agent, "augmented", augmenting)
    for name in ("learn_critic", "learn_actor", "learn_encoder"):
        original = getattr(agent, name)

        def recording(*args, name=name, original=original):
            kept[name] = args
            return original(*args)

        monkeypatch.setattr(agent, name, recording)
    agent.learn(batch)
    for seen, offset in zip(raw["seen"], (0, 1), strict=True):
        rows = batch.rows[:, offset : offset + 2, :1200].reshape(8, 2, 20, 20, 3)
        assert np.array_equal(seen.frames, np.concatenate((rows[:, 0], rows[:, 1]), axis=-1))
    now, after = kept["views"]
    critic_now, actions, rewards, not_done, critic_after, noise = kept["learn_critic"]
    assert critic_now.frames is now.frames and critic_after.frames is after.frames
    assert critic_now.vector is now.vector and critic_after.vector is after.vector
    assert now.frames.shape == (8, 16, 16, 6)
    assert torch.equal(actions, batch.actions) and torch.equal(rewards, batch.rewards)
    assert torch.equal(not_done, batch.not_done)
    actor_now, taken, actor_noise = kept["learn_actor"]
    assert torch.equal(taken, batch.actions)
    assert actor_now is critic_now and not torch.equal(actor_noise, noise)
    assert kept["learn_encoder"][:2] == (now, raw["seen"][0])  # CURL's anchor is the update's own crop


# ---- files


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cls", [SAC, RAD, CURL, SACAE])
def test_a_restored_agent_continues_bit_for_bit(cls, precision, tmp_path):
    agent = make(cls, slots=2, replay=60, actor_every=2, precision=precision)
    rng = np.random.default_rng(0)
    for k in range(5):
        agent.update(step_of(agent, rng, t=k, end="truncated" if k == 4 else ""))
    assert agent.updates == (10 if cls is SACAE else 8)
    manifest = agent.replay.commit(tmp_path / "replay")
    tensors, numbers = agent.snapshot()
    checkpoint.save_file(tmp_path / "checkpoint", tensors, {"agent": numbers, "replay": manifest})
    kept = {name: t.clone() for name, t in tensors.items()}
    steps = [step_of(agent, rng, t=k) for k in range(4)]
    metrics = [agent.update(step) for step in steps]
    assert all(torch.equal(t, kept[name]) for name, t in tensors.items())  # a snapshot is a copy

    loaded, header = checkpoint.load_file(tmp_path / "checkpoint")
    for source in (tensors, loaded):
        other = make(cls, slots=2, replay=60, actor_every=2, seed=9, precision=precision)
        other.restore(source, header["agent"])
        other.replay.load(tmp_path / "replay", header["replay"])
        assert [other.update(step) for step in steps] == metrics
        ours, theirs = agent.snapshot(), other.snapshot()
        assert ours[1] == theirs[1] and ours[0].keys() == theirs[0].keys()
        assert [name for name, t in ours[0].items() if not torch.equal(t, theirs[0][name])] == []


@pytest.mark.parametrize("cls", [SAC, RAD, SACAE])
def test_policies_act_alike_and_hold_no_critics(cls, tmp_path):
    agent = shaken(make(cls), scale=0.2)
    for k in range(5):
        agent.update(step_of(agent, np.random.default_rng(k), t=k))
    state = agent.policy_state()
    assert not any("critic" in name or "target" in name or "objective" in name for name in state)
    assert not any("online.head" in name for name in state)
    checkpoint.save_file(tmp_path / "policy", state, {})
    tensors, _ = checkpoint.load_file(tmp_path / "policy")
    other = make(cls, seed=5)
    rng = np.random.default_rng(0)
    rows = np.concatenate([other.observe(some_obs(other, 4, rng)) for _ in range(other.stack)], axis=1)
    noise = rng.standard_normal((4, ACTION)).astype(np.float32)
    assert not np.array_equal(other.act(rows, noise), agent.act(rows, noise))
    other.load_policy_state(tensors)
    for drawn in (noise, None):
        assert np.array_equal(other.act(rows, drawn), agent.act(rows, drawn))
    agent.learn(some_batch(agent))
    assert all(torch.equal(t, tensors[name]) for name, t in state.items())  # a copy


def test_policies_of_other_networks_are_refused():
    policy = make(RAD).policy_state()
    for other in (
        make(SAC),
        make(RAD, encoder={"layers": 3}),
        make(RAD, hidden=(16, 8)),
        make(RAD, hidden=(16,)),
        make(RAD, state_dim=4),
        make(RAD, encoder={"stack": 2}),
    ):
        before = values(other)
        with pytest.raises(UserError, match="of other networks"):
            other.load_policy_state(policy)
        assert not moved(before, values(other))


def test_demonstrations_are_refused_without_ferm():
    agent = make()
    assert agent.warm_start(None) == {}
    with pytest.raises(UserError, match=r"demos = None`, or take one of .*@FERM\(\)"):
        agent.warm_start(some_rollout(agent))
    with pytest.raises(UserError, match="SAC has no warm start"):
        make(encoder_loss="warm_start")
