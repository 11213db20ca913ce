"""The replay memory against a memory that keeps every stack of every transition, and its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rrl.agents.replay import Replay
from rrl.registry import UserError
from rrl.rollout.data import Rollout


class Plain:
    """The obvious memory: for each slot a list of (stack before, action, reward, not done, stack after)."""

    def __init__(self, size, slots, stack):
        self.size, self.stack = size, stack
        self.places = [[] for _ in range(slots)]  # per slot: what each place of the ring held, in order
        self.history = [[] for _ in range(slots)]

    def step(self, slot, row, action, reward, terminated, truncated, after):
        history = self.history[slot] or [row]
        before = [history[max(i, 0)] for i in range(len(history) - self.stack, len(history))]
        history = [*history, after]
        following = [history[max(i, 0)] for i in range(len(history) - self.stack, len(history))]
        oldest = len(self.places[slot]) - min(self.stack - 1, len(history) - 2)
        self.places[slot].append((oldest, (before, action, reward, not terminated, following)))
        self.history[slot] = history
        if terminated or truncated:
            self.places[slot].append((None, None))  # the last observation takes a place
            self.history[slot] = []

    def transitions(self):
        """All whose whole stack is among the latest `size` places (the newest observation takes one)."""
        found = set()
        for places in self.places:
            first = len(places) + 1 - self.size
            for i, (oldest, value) in enumerate(places):
                if value is not None and i >= first and oldest >= first:
                    found.add(key(*value))
        return found


def key(before, action, reward, not_done, after):
    return tuple(before), tuple(after), float(action), float(reward), bool(not_done)


def play(rng, slots, rounds):
    """Rounds of steps as `Stepper` makes them: every observation is a number of its own."""
    t, row, fresh = np.zeros(slots, int), np.arange(slots, dtype=float), slots
    for _ in range(rounds):
        after = np.arange(fresh, fresh + slots, dtype=float)
        fresh += slots
        ends = rng.random(slots)
        terminated, truncated = ends < 0.1, (ends > 0.85) & (ends < 0.95)
        actions, rewards = rng.normal(size=(2, slots)).astype(np.float32)
        yield Rollout(
            obs=row[:, None].astype(np.float32),
            actions=actions[:, None],
            rewards=rewards.astype(float),
            flags={},
            episode=np.arange(slots, dtype=np.int32),
            t=t.astype(np.int32),
            terminated=terminated,
            truncated=truncated,
            final_obs=after[:, None].astype(np.float32),
        )
        over = terminated | truncated
        t = np.where(over, 0, t + 1)
        row = np.where(over, np.arange(fresh, fresh + slots), after)
        fresh += slots


def take_in(plain, rollout):
    for s in range(len(rollout.t)):
        plain.step(
            s,
            rollout.obs[s, 0],
            rollout.actions[s, 0],
            rollout.rewards[s],
            rollout.terminated[s],
            rollout.truncated[s],
            rollout.final_obs[s, 0],
        )


def drawn(replay, count, seed=0):
    batch = replay.draw(count, torch.Generator().manual_seed(seed))
    rows = batch.rows[:, :, 0]
    return [
        key(rows[i, :-1], batch.actions[i, 0], batch.rewards[i], batch.not_done[i], rows[i, 1:]) for i in range(count)
    ]


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("rounds", [1, 9, 60])
def test_draws_what_a_plain_memory_holds(stack, slots, rounds):
    replay = Replay(30 * slots, 1, np.float32, 1, stack)
    plain = Plain(30, slots, stack)
    for rollout in play(np.random.default_rng(rounds), slots, rounds):
        replay.add(rollout)
        take_in(plain, rollout)
    assert set(drawn(replay, 3000)) == plain.transitions()


def test_draws_are_uniform_and_repeatable():
    replay = Replay(40, 1, np.float32, 1, 2)
    for rollout in play(np.random.default_rng(1), 2, 100):
        replay.add(rollout)
    found = drawn(replay, 20_000)
    counts = np.array([found.count(each) for each in set(found)])
    expected = len(found) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * len(counts)  # chi-squared: mean is its dimension
    assert found == drawn(replay, 20_000)
    assert found != drawn(replay, 20_000, seed=1)


def test_whole_episodes_are_dealt_to_the_slots():
    replay = Replay(100, 1, np.float32, 1)
    lengths = [3, 5, 2]
    replay.add(whole(lengths), slots=2)
    assert len(set(drawn(replay, 1000))) == sum(lengths)
    assert replay.slots == 2
    with pytest.raises(UserError, match="doesn't go on"):
        replay.add(whole([3], t=4))


def whole(lengths, t=0):
    steps = sum(lengths)
    ends = np.cumsum(lengths) - 1
    truncated = np.zeros(steps, bool)
    truncated[ends] = True
    return Rollout(
        obs=np.arange(steps, dtype=np.float32)[:, None],
        actions=np.zeros((steps, 1), np.float32),
        rewards=np.arange(steps, dtype=float),
        flags={},
        episode=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        t=np.concatenate([np.arange(n) + t for n in lengths]).astype(np.int32),
        terminated=np.zeros(steps, bool),
        truncated=truncated,
        final_obs=100 + np.arange(len(lengths), dtype=np.float32)[:, None],
    )


@pytest.mark.parametrize("slots", [1, 2])
def test_files_bring_everything_back_after_the_ring_wrapped(tmp_path, slots):
    rollouts = list(play(np.random.default_rng(3), slots, 90))
    a = Replay(24 * slots, 1, np.float32, 1, 3)
    for i, rollout in enumerate(rollouts):
        a.add(rollout)
        if i % 7 == 0:
            manifest = a.commit(tmp_path)
            a.tidy(tmp_path)
    kept = {segment["name"] for segment in manifest["segments"]}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert len(kept) < slots * 90 / 7 / 2  # old ones are gone
    b, c = (Replay(24 * slots, 1, np.float32, 1, 3) for _ in range(2))
    b.load(tmp_path, manifest)
    for rollout in rollouts[:85]:  # what `a` held at the last commit, 84 rounds later than the first
        c.add(rollout)
    assert drawn(b, 500) == drawn(c, 500)
    for rollout in rollouts[85:]:
        b.add(rollout)
    assert drawn(b, 500) == drawn(a, 500)
    b.commit(tmp_path)
    d = Replay(24 * slots, 1, np.float32, 1, 3)
    d.load(tmp_path, b.commit(tmp_path))
    assert drawn(d, 500) == drawn(a, 500)


def test_what_no_checkpoint_names_is_dropped_and_what_it_names_must_be_there(tmp_path):
    replay = Replay(40, 1, np.float32, 1)
    rollouts = list(play(np.random.default_rng(5), 1, 20))
    for rollout in rollouts[:10]:
        replay.add(rollout)
    manifest = replay.commit(tmp_path)
    expected = drawn(replay, 100)
    for rollout in rollouts[10:]:
        replay.add(rollout)
    replay.commit(tmp_path)  # killed before the checkpoint that names it
    again = Replay(40, 1, np.float32, 1)
    again.load(tmp_path, manifest)
    assert drawn(again, 100) == expected
    assert {path.name for path in tmp_path.iterdir()} == {s["name"] for s in manifest["segments"]}
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="can't be read"):
        Replay(40, 1, np.float32, 1).load(tmp_path, manifest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segments": [{"name": "../../victim.npz", "slot": 0, "first": 0, "count": 10}]}, "none of a replay memory's"),
        ({"segments": [{"name": "/tmp/victim.npz", "slot": 0, "first": 0, "count": 10}]}, "none of a replay memory's"),
        (
            {"segments": [{"name": "7-000000000000-000000000009.npz", "slot": 7, "first": 0, "count": 10}]},
            "none of a replay memory's",
        ),
        ({"segments": [{"name": 3}]}, "is damaged"),
        ({"segments": 3}, "is damaged"),
        ({"head": [[1]]}, "none of a replay memory's"),
        ({"head": ["many"]}, "is damaged"),
        ({"head": [10**30]}, "is damaged"),
        ({"head": None}, "is damaged"),
    ],
)
def test_a_manifest_that_no_memory_wrote_is_refused_and_nothing_deleted(tmp_path, change, words):
    replay = Replay(40, 1, np.float32, 1)
    for rollout in play(np.random.default_rng(5), 1, 10):
        replay.add(rollout)
    manifest = replay.commit(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=words):
        Replay(40, 1, np.float32, 1).load(tmp_path, manifest | change)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_memorys_folder_is_no_link(tmp_path):
    replay = Replay(40, 1, np.float32, 1)
    for rollout in play(np.random.default_rng(5), 1, 10):
        replay.add(rollout)
    manifest = replay.commit(tmp_path / "replay")
    (tmp_path / "victim.npz").touch()
    (tmp_path / "other").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        Replay(40, 1, np.float32, 1).load(tmp_path / "other", manifest)
    assert (tmp_path / "victim.npz").exists()


def test_memory_is_one_row_per_observation():
    replay = Replay(1000, 30_000, np.uint8, 6, 3)
    replay._allocate(1)
    arrays = (replay.rows, replay.actions, replay.rewards, replay.t, replay.kind)
    assert sum(array.nbytes for array in arrays) <= 1.05 * 1000 * 30_000
    with pytest.raises(UserError, match="too small"):
        Replay(10, 1, np.float32, 1, 3)._allocate(2)
    with pytest.raises(ValueError, match="no transition"):
        Replay(10, 1, np.float32, 1).draw(1, torch.Generator())


def test_a_memory_larger_than_the_machines_costs_what_is_in_it_and_too_many_places_are_refused():
    """2 TB of places in which a few steps are; the places of 10^14 steps alone are more than any machine gives."""
    small, large = (Replay(capacity, 20_000, np.uint8, 1) for capacity in (200, 10**8))
    for memory in (small, large):
        memory.add(whole([5, 3]))
    assert large.rows.nbytes == 2 * 10**12
    with pytest.raises(UserError, match=r"no room for a replay memory of 100,000,000,000,000 observations"):
        Replay(10**14, 20_000, np.uint8, 1).add(whole([5]))


@pytest.mark.parametrize("stack", [1, 3])
def test_the_latest_episode_comes_back_in_order(stack):
    """Step by step as it was put in, for every episode that ended; none while one runs, nor once it is overwritten."""
    memory, rng = Replay(2 * 40, 1, np.float32, 1, stack), np.random.default_rng(0)
    rows, steps, full = [[], []], [[], []], 0
    for rollout in play(rng, 2, 120):
        memory.add(rollout)
        for slot in (0, 1):
            rows[slot].append(rollout.obs[slot, 0])
            steps[slot].append((rollout.actions[slot, 0], rollout.rewards[slot], not rollout.terminated[slot]))
            if not (rollout.terminated[slot] or rollout.truncated[slot]):
                assert memory.latest(slot) is None
                continue
            rows[slot].append(rollout.final_obs[slot, 0])
            episode, length = memory.latest(slot), len(steps[slot])
            if length + 2 <= 40:
                full += 1
                assert episode is not None
                expected = [[rows[slot][max(i, 0)] for i in range(t + 1 - stack, t + 2)] for t in range(length)]
                assert episode.rows[..., 0].tolist() == expected
                told = zip(episode.actions[:, 0], episode.rewards, episode.not_done, strict=True)
                assert [tuple(map(float, each)) for each in told] == [tuple(map(float, s)) for s in steps[slot]]
            rows[slot], steps[slot] = [], []
    assert full > 10
    small = Replay(10, 1, np.float32, 1)
    small.add(whole([12]))
    assert small.latest(0) is None
