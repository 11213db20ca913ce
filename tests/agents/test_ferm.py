"""FERM: demonstrations in the memory, the warm start, cloning."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.sac_agents import (
    ACTION,
    PIXELS,
    STATE,
    both_q,
    gaussian,
    losses_of,
    make,
    moved,
    names_of,
    rollout_of,
    sampled,
    shaken,
    slope_of,
    some_obs,
    step_of,
    values,
    watched,
    weights_of,
)
from helpers.stores import prepared
from torch.nn import functional as F

from rrl.agents.ferm import FERM, cut
from rrl.agents.off_policy import Seen
from rrl.config import ginfile
from rrl.encoders.state import State
from rrl.registry import UserError
from rrl.rollout.data import Obs
from rrl.run import process
from rrl.store import checkpoint, results


def test_demonstrations_are_cut_where_their_episode_ends():
    """Replayed to their own end: past the horizon, past a true end, up to one of both, and shorter."""
    rng = np.random.default_rng(0)
    lengths = [7, 6, 4, 3, 2]
    full = rollout_of(
        np.arange(22, dtype=np.float32)[:, None],
        100 + np.arange(5, dtype=np.float32)[:, None],
        lengths,
        actions=rng.uniform(-3, 3, (22, ACTION)).astype(np.float32),
        rng=rng,
    )
    starts = full.starts
    truncated, terminated = np.zeros((2, 22), bool)
    truncated[[starts[0] + 3, starts[0] + 4, starts[0] + 5, starts[0] + 6]] = True  # a horizon of 4, passed
    terminated[[starts[1] + 2, starts[1] + 4]] = True  # ended after 3 steps
    truncated[[starts[1] + 3, starts[1] + 5]] = True
    truncated[starts[2] + 3] = True  # exactly the horizon
    terminated[starts[3] + 2] = True  # exactly its end; the last one is shorter than the horizon
    flags = {"success": rng.random(22) > 0.5}
    got = cut(dataclasses.replace(full, truncated=truncated, terminated=terminated, flags=flags))
    keep = np.concatenate([starts[e] + np.arange(n) for e, n in enumerate((4, 3, 4, 3, 2))])
    assert got.episode.tolist() == [0] * 4 + [1] * 3 + [2] * 4 + [3] * 3 + [4] * 2
    assert got.t.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert got.obs[:, 0].tolist() == keep.tolist()
    assert got.final_obs[:, 0].tolist() == [4, 10, 102, 103, 104]
    assert np.flatnonzero(got.terminated).tolist() == [6, 13]
    assert np.flatnonzero(got.truncated).tolist() == [3, 10, 15]
    assert np.array_equal(got.actions, np.clip(full.actions[keep], -1, 1)) and np.abs(full.actions).max() > 1
    assert np.array_equal(got.rewards, full.rewards[keep])
    assert np.array_equal(got.flags["success"], flags["success"][keep])
    # and so they get into the memory
    agent = make(FERM, warm_start_updates=0, state_dim=0, slots=2)
    agent.replay = type(agent.replay)(100, 1, np.float32, ACTION)
    agent.replay.add(got, slots=2)
    batch = agent.replay.draw(400, agent.generator)
    found = {(int(r[0, 0]), int(r[1, 0]), int(d)) for r, d in zip(batch.rows, batch.not_done, strict=True)}
    after = {3: 4, 9: 10, 16: 102, 19: 103, 21: 104}
    assert found == {(i, after.get(i, i + 1), int(i not in (9, 19))) for i in keep.tolist()}


def colourful_demos(agent, count=6, length=5, seed=0):
    """Pictures that are told apart by their colours, actions that the state decides."""
    rng = np.random.default_rng(seed)
    total = count * (length + 1)
    base = rng.integers(0, 220, (total, 1, 1, agent.picture[2]))
    frames = (base + rng.integers(0, 32, (total, *agent.picture))).astype(np.uint8)
    frames = np.tile(frames, (1, 1, 1, agent.stack))
    state = rng.standard_normal((total, STATE)).astype(np.float32)
    rows = agent.observe(Obs(frames, state))
    k = count * length
    actions = np.stack((np.tanh(state[:k, 0]), -0.5 * np.ones(k)), axis=1).astype(np.float32)
    return rollout_of(rows[:k], rows[k:], [length] * count, actions=actions, rng=rng)


def test_ferm_warm_starts_its_encoder_on_the_demonstrations(monkeypatch):
    agent = make(
        FERM,
        encoder={"stack": 1, "own_learning_rate": 1e-2, "features": 16},
        warm_start_updates=100,
        batch=16,
        slots=2,
        init_steps=2,
        encoder_tau=0.05,
    )
    demos = colourful_demos(agent, count=20)
    with pytest.raises(UserError, match="needs demonstrations"):
        agent.warm_start(None)
    losses, targets = [], []
    learn, move = agent.learn_encoder, agent.move_targets

    def learning(*args):
        found = learn(*args)
        losses.append(found["encoder/loss"])
        return found

    monkeypatch.setattr(agent, "learn_encoder", learning)
    monkeypatch.setattr(agent, "move_targets", lambda: targets.append(len(losses)) or move())
    before = values(agent)
    metrics = agent.warm_start(demos)
    assert metrics["demos/steps"] == 100 and metrics["encoder/loss"] == losses[-1]
    assert metrics["encoder/moved"] > 0.01
    assert targets == list(range(1, 101))  # the target encoder follows after every update
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    shared = ("online.encoder.", "online.head.", "target.encoder.", "target.head.")
    assert moved(before, values(agent)) == names_of(agent, *shared)
    assert agent.updates == 0 and agent.seen == 0
    # online: random actions first, then updates from demonstrations and own steps, without the loss
    rng = np.random.default_rng(0)
    assert agent.replay.slots == 2
    online = agent.update(step_of(agent, rng))
    assert agent.updates == 2 and len(losses) == 100
    assert "sac/critic_loss" in online and "encoder/loss" not in online
    drawn = agent.replay.draw(1500, agent.generator).rewards.tolist()
    assert set(np.float32(demos.rewards).tolist()) < set(drawn) and len(set(drawn)) == 102


@pytest.mark.parametrize("convolutions", [True, False])
def test_ferm_clones_when_asked(monkeypatch, convolutions):
    agent = make(
        FERM,
        encoder={"stack": 1},
        warm_start_updates=0,
        bc_epochs=40,
        bc_convolutions=convolutions,
        batch=10,
        actor_lr=1e-2,
        state_dim=STATE,
    )
    demos = colourful_demos(agent)
    observed = demos.obs
    errors = [np.square(agent.act(observed, None) - demos.actions).mean()]
    seen = watched(agent, monkeypatch)
    metrics = agent.warm_start(demos)
    errors.append(np.square(agent.act(observed, None) - demos.actions).mean())
    assert errors[1] < 0.15 * errors[0]
    assert metrics["bc/loss"] == pytest.approx(errors[1], rel=1, abs=0.02)
    half = names_of(agent, "actor.", "actor_head.")
    trunk = names_of(agent, "online.encoder.convolutions.")
    if not convolutions:
        assert [label for label, _ in seen] == ["actor"] * (40 * 30 // 10)
        assert all(names <= half for _, names in seen) and metrics["encoder/moved"] == 0
        return
    assert [label for label, _ in seen] == ["actor+convolutions", "targets"] * (40 * 30 // 10)
    assert all(trunk <= names <= half | trunk for label, names in seen if label != "targets")
    # the target encoder follows; the critics and their head, which learn nothing here, are their own targets still
    target = names_of(agent, "target.encoder.convolutions.")
    assert all(names == target for label, names in seen if label == "targets")
    assert metrics["encoder/moved"] > 0.01
    assert trunk <= agent.policy_state().keys()  # policies act with what the cloning made


def test_cloning_trains_all_that_ferms_adam_holds():
    """Its first step, against the loss written down again in float64: Adam goes lr * g / (|g| + eps)."""
    agent = shaken(make(FERM, encoder={"stack": 1}, warm_start_updates=0, bc_epochs=1, actor_lr=1e-3, critic_lr=1))
    demos = colourful_demos(agent, count=1, length=8)  # one batch
    agent.replay.add(demos)
    same = torch.Generator().set_state(agent.generator.get_state())
    batch = agent.replay.draw(8, same)
    seen = agent.split(batch.rows[:, :-1])
    (views,) = agent.pixels.augment(seen.frames, generator=same)
    parts = (agent.pixels.convolutions, agent.actor_head, agent.actor)
    weights = [[p.detach().double().requires_grad_() for p in part.parameters()] for part in parts]
    (w0, b0, w1, b1), (linear, shift, gain, beta), mlp = weights
    maps = (views.double() / 255).permute(0, 3, 1, 2)
    maps = F.relu(F.conv2d(F.relu(F.conv2d(maps, w0, b0, stride=2)), w1, b1))
    code = F.layer_norm(maps.permute(0, 2, 3, 1).flatten(1) @ linear.T + shift, (len(gain),), gain, beta)
    x = torch.cat((code, seen.vector.double()), 1)
    for i in range(0, len(mlp), 2):
        x = (F.relu(x) if i else x) @ mlp[i].T + mlp[i + 1]
    loss = (torch.tanh(x[:, :ACTION]) - batch.actions.double()).square().mean()
    flat = [p for part in weights for p in part]
    gradients = torch.autograd.grad(loss, flat)
    assert all(g.any() for g in gradients)
    before = [p.detach().double().clone() for part in parts for p in part.parameters()]
    assert agent._clone()["bc/loss"] == pytest.approx(loss.item(), rel=1e-4)
    after = [p.detach().double() for part in parts for p in part.parameters()]
    for a, b, g in zip(before, after, gradients, strict=True):
        clear = g.abs() > 1e-5  # beyond rounding in float32
        assert clear.any()
        torch.testing.assert_close((b - a)[clear], (-1e-3 * g / (g.abs() + 1e-8))[clear], atol=2e-6, rtol=2e-3)


def test_a_run_goes_on_after_cloning_as_if_never_stopped():
    """The convolutions' Adam is in the checkpoint; learning online is the critics' again."""
    settings = {"warm_start_updates": 2, "bc_epochs": 2, "init_steps": 1, "replay": 40}
    one, two = (make(FERM, encoder={"stack": 1}, seed=seed, **settings) for seed in (0, 1))
    demos = colourful_demos(one)
    one.warm_start(demos)
    two.replay.add(cut(demos), slots=two.slots)
    two.restore(*one.snapshot())
    moments = [agent.optimisers["convolutions"].state() for agent in (one, two)]
    assert moments[0].keys() == moments[1].keys() and all(torch.equal(t, moments[1][k]) for k, t in moments[0].items())
    online = [agent.update(step_of(agent, np.random.default_rng(0))) for agent in (one, two)]
    assert online[0] == online[1] and not moved(values(one), values(two))
    for name, t in one.optimisers["convolutions"].state().items():
        assert torch.equal(t, moments[0][name])


def test_cloning_on_a_frozen_encoder_needs_no_convolutions():
    agent = make(FERM, encoder=State(State.Config()), encoder_loss="never", bc_epochs=2, batch=5)
    rng = np.random.default_rng(0)
    metrics = agent.warm_start(rollout_of(agent.observe(some_obs(agent, 10, rng)), np.zeros((1, STATE)), [10], rng=rng))
    assert metrics["bc/loss"] > 0 and "encoder/moved" not in metrics


def test_a_run_recorded_before_was_cloned_without_its_convolutions():
    """Its record states all settings but this one; a user's file states few, and gets FERM's."""
    assert FERM.Config(bc_epochs=100, replay=10).bc_convolutions
    text = ginfile.dumps(FERM.Config(bc_epochs=100))
    line = "FERM.bc_convolutions = True\n"
    assert ginfile.loads(text, "config.gin", root="FERM").bc_convolutions
    record = ginfile.loads(text.replace(line, ""), "config.gin", root="FERM")
    assert line in text and not record.bc_convolutions and record.bc_epochs == 100
    assert ginfile.loads(ginfile.dumps(record), "config.gin", root="FERM") == record


def test_a_warm_start_that_diverges_says_where():
    agent = make(FERM, encoder={"stack": 1, "own_learning_rate": 1e30}, warm_start_updates=5, batch=10)
    said = r"ContrastiveCNN diverged in the warm start, update \d of 5 of the encoder: its own loss is (.|\n)* 1e\+30"
    with pytest.raises(UserError, match=said):
        agent.warm_start(colourful_demos(agent))
    agent = make(FERM, encoder={"stack": 1}, warm_start_updates=0, bc_epochs=4, batch=10)
    with torch.no_grad():
        agent.actor.mlp[0].weight[0, 0] = np.nan
    with pytest.raises(UserError, match="FERM diverged in the warm start, step 1 of 12 of cloning: bc/loss is nan"):
        agent.warm_start(colourful_demos(agent))


def test_cloning_passes_count_the_steps_that_are_kept(monkeypatch):
    agent = make(FERM, encoder={"stack": 1}, warm_start_updates=0, bc_epochs=4, batch=3)
    demos = colourful_demos(agent)
    truncated = demos.truncated | (demos.t >= 2)  # a horizon of 3: 18 of 30 steps are kept
    seen = watched(agent, monkeypatch)
    metrics = agent.warm_start(dataclasses.replace(demos, truncated=truncated))
    assert [label for label, _ in seen].count("actor+convolutions") == 4 * 18 // 3 and metrics["demos/steps"] == 18


def test_the_warm_start_tells_how_far_it_is():
    told = []

    class Told:
        def phase(self, name, steps):
            told.append([name, steps, 0])

        def advance(self, steps):
            told[-1][2] += steps

    agent = make(FERM, encoder={"stack": 1}, warm_start_updates=5, bc_epochs=4, batch=10)
    agent.warm_start(colourful_demos(agent), Told())
    assert told == [["warm start: encoder", 5, 5], ["warm start: cloning", 12, 12]]


# ---- what FERM's authors don't do: gin/method/ferm_imitation.gin


def sharing(**settings):
    """FERM on a state, a quarter of whose batches of 8 are demonstrations: rewards of theirs are above 100."""
    config = {"encoder_loss": "never", "demo_share": 0.25, "init_steps": 1, "replay": 12} | settings
    agent = make(FERM, encoder=State(State.Config()), **config)
    rng = np.random.default_rng(3)
    obs, final = agent.observe(some_obs(agent, 10, rng)), agent.observe(some_obs(agent, 2, rng))
    return agent, rollout_of(obs, final, [5, 5], rewards=100 + np.arange(10), rng=rng)


def test_demonstrations_keep_their_share_of_every_batch():
    agent, demos = sharing()
    agent.warm_start(demos)
    assert (agent.draw().rewards >= 100).all() and agent.replay.slots == 0
    seen = set()
    for t in range(40):  # three times what the memory holds
        agent.update(step_of(agent, np.random.default_rng(t), t=t))
        batch = agent.draw()
        assert (batch.rewards >= 100).tolist() == [True] * 2 + [False] * 6 and batch.rows.shape[0] == 8
        seen |= set(batch.rewards[:2].tolist())
    assert seen == set(np.arange(100.0, 110))  # all of them, to the end


def test_a_run_with_a_share_goes_on_as_if_never_stopped(tmp_path):
    one, demos = sharing(bc_weight=2.0, offline_updates=3, bounded_targets=True)
    one.warm_start(demos)
    one.update(step_of(one, np.random.default_rng(0)))
    manifest = one.replay.commit(tmp_path)
    two, _ = sharing(bc_weight=2.0, offline_updates=3, bounded_targets=True, seed=5)
    two.remember(demos)
    two.restore(*one.snapshot())
    two.replay.load(tmp_path, manifest)
    online = [agent.update(step_of(agent, np.random.default_rng(1), t=1)) for agent in (one, two)]
    assert online[0] == online[1] and not moved(values(one), values(two))


def test_cloning_goes_on_in_the_actors_loss(monkeypatch):
    """Its gradient, by finite differences in float64: of the demonstrations' rows alone, times mean |Q|."""
    agent, _ = sharing(bc_weight=3.0, hidden=(5,))
    shaken(agent, 0.3).double()
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((8, STATE)), rng.standard_normal((8, ACTION))
    actions = rng.uniform(-1, 1, (8, ACTION))
    kept = losses_of(agent, monkeypatch)
    agent.learn_actor(Seen(None, torch.tensor(x)), torch.tensor(actions), torch.tensor(noise))
    config, actor, critic = agent.config, weights_of(agent.actor), weights_of(agent.online["critic"])

    def q_and_log_pi():
        a, log_pi = sampled(actor, x, noise, config)
        return np.minimum(*both_q(critic, x, a)), log_pi

    scale = np.abs(q_and_log_pi()[0]).mean()

    def loss():
        q, log_pi = q_and_log_pi()
        mu, _ = gaussian(actor, x[:2], config.log_std_min, config.log_std_max)
        return (0.1 * log_pi - q).mean() + 3 * scale * np.square(np.tanh(mu) - actions[:2]).mean()

    assert kept["actor"][0] == pytest.approx(loss(), rel=1e-6)
    for got, expected in zip(kept["actor"][1], slope_of(loss, actor), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_what_was_cloned_is_not_undone_by_the_first_steps_online():
    """Adam divides by the root of the squared gradients that it has seen, and cloning's are far smaller than the
    actor's online: with them in it the first step would be thirty learning rates long."""
    agent, demos = sharing(bc_epochs=40)
    agent.warm_start(demos)
    assert not any(state.any() for state in agent.optimisers["actor"].squares)
    before = values(agent)
    agent.update(step_of(agent, np.random.default_rng(0)))
    agent.update(step_of(agent, np.random.default_rng(1), t=1))  # every other update is of the actor too
    after = values(agent)
    actor = names_of(agent, "actor.")
    assert max(float((after[name] - before[name]).abs().max()) for name in actor) == pytest.approx(1e-3, rel=0.01)


def test_updates_on_demonstrations_alone_come_before_the_first_step():
    agent, demos = sharing(offline_updates=5)
    before = values(agent)
    said = agent.warm_start(demos)
    assert agent.updates == 5 and agent.seen == 0 and {"sac/critic_loss", "sac/actor_loss"} <= said.keys()
    assert said["sac/batch_reward"] >= 100
    assert names_of(agent, "actor.", "online.critic.", "target.critic.") <= moved(before, values(agent))


def test_a_share_that_leaves_nothing_is_refused():
    for text, said in (
        ("FERM.demo_share = 0.01\nFERM.batch = 8\n", "0.01 of a batch of 8 is 0 transitions"),
        ("FERM.demo_share = 0.99\nFERM.batch = 8\n", "0.99 of a batch of 8 is 8 transitions"),
        ("FERM.bc_weight = 1.0\n", "needs demonstrations in every batch"),
    ):
        with pytest.raises(UserError, match=said):
            ginfile.loads(text, "x.gin", root="FERM")


@pytest.mark.parametrize("cls", PIXELS)
def test_updates_tell_how_far_the_convolutions_moved(cls):
    agent = make(cls)
    start = [p.detach().double().clone() for p in agent.pixels.convolutions.parameters()]
    for k in range(6):
        metrics = agent.update(step_of(agent, np.random.default_rng(k), t=k))
    now = [p.detach().double() for p in agent.pixels.convolutions.parameters()]
    squares = sum(float((a - b).square().sum()) for a, b in zip(now, start, strict=True))
    expected = math.sqrt(squares / sum(float(b.square().sum()) for b in start))
    assert expected > 1e-3 and metrics["encoder/moved"] == pytest.approx(expected, rel=1e-4)


def test_an_experiment_fills_the_memory_with_its_demonstrations(tmp_path, monkeypatch):
    """From the shipped demonstrations, replayed and drawn, to updates at every step: `rrl run`."""
    monkeypatch.chdir(prepared(tmp_path))
    settings = ["iterations = 2", "log_every = 15", "evaluators = ()"]
    settings = [f"Experiment.{each}" for each in settings]
    settings += ["Adroit.horizon = 20", "DemoSet.episodes = 2"]
    settings += ["ContrastiveCNN.render = 24", "ContrastiveCNN.crop = 20", "ContrastiveCNN.filters = 4"]
    settings += ["FERM.warm_start_updates = 3", "FERM.batch = 4", "FERM.hidden = (16,)"]
    settings += ["FERM.replay = 100", "FERM.init_steps = 10"]
    assert process.start("adroit_door_ferm", settings, None, None) == 0
    (path,) = tmp_path.glob("runs/*/run.json")
    rows = [row.metrics for row in results.read(path.parent).rows]
    (first,) = [row for row in rows if "demos/steps" in row]
    assert first["demos/steps"] == 40 and first["encoder/loss"] > 0 and first["encoder/moved"] > 0
    assert "sac/critic_loss" in rows[-1] and "encoder/loss" not in rows[-1]
    assert rows[-1]["encoder/moved"] > first["encoder/moved"]
    assert (
        checkpoint.load_file(path.parent / "checkpoint.safetensors")[1]["agent"]["updates"] == 21
    )  # of 30, from the 10th
