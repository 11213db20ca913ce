"""Pictures of a data set: whose they are, that they can be made again bit for bit, and what a disk may do."""

import json
import re
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lines import Lines

from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.pretrain import collect as collecting
from rrl.pretrain.collect import BudgetOver, collect
from rrl.pretrain.pretraining import Pretraining, parts, resolve
from rrl.registry import UserError
from rrl.rollout.data import Stream
from rrl.run import policies
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve as placed
from rrl.store import files
from rrl.store.pictures import FACTS, PictureStore

SMALL = (
    "VAE.size = 32",
    "VAE.latent = 8",
    "Pretraining.num_envs = 2",
    "Pretraining.workers = 0",
    "Pretraining.threads = 1",
    "Pretraining.batch = 10",
)


def pretraining(task="door", *settings):
    own = {text.partition(" = ")[0] for text in settings}
    others = [text for text in SMALL if text.partition(" = ")[0] not in own]
    return Pretraining(resolve(ginfile.load(f"pretrain/vae_adroit_{task}", [*others, *settings], "Pretraining")))


def alone(wanted, kind, episode, std, *, expert=None):
    """The pictures of one episode, made without any of the collecting code: [steps * cameras, 32, 32, 3]."""
    reset, noise = np.random.SeedSequence([wanted.config.seed, Stream.PICTURES, kind, episode]).spawn(2)
    env = wanted.env.make_one(wanted.frames)
    shape = wanted.env.horizon, env.action_space.shape[0]
    if std is None:
        drawn = np.random.default_rng([wanted.config.seed, Stream.PICTURES, kind, episode, 1]).uniform(-1, 1, shape)
    else:
        drawn = std * np.random.default_rng(noise).standard_normal(shape, np.float32)
    seed = int(reset.generate_state(1)[0])
    obs, _ = env.reset(seed=seed)
    own = expert and expert.make_env()
    seen = own.reset(seed=seed)[0] if own else None
    agent, pictures = wanted.expert[1], []
    for row in drawn.astype(np.float32):
        action = row
        if own:
            action = expert.act(seen) + row
            seen = own.step(action)[0]
        elif std is not None:
            # In a batch of two, as in the collection: rounding depends on its shape.
            action = agent.act(np.stack([obs["state"]] * 2), None)[episode % 2] + row
        obs, _, terminated, truncated, _ = env.step(action)
        pictures += np.split(obs["frames"].copy(), len(wanted.env.cameras), axis=-1)
        if terminated or truncated:
            break
    env.close()
    return np.stack(pictures)


def test_pictures_are_of_the_kinds_of_actions_that_the_mixture_says(tmp_path):
    """The pen, which random actions drop: episodes of several lengths."""
    mixture = "Pretraining.mixture = (0.2, 0.1, 0.3, 0.4)"
    wanted = pretraining("pen", "Pretraining.pictures = 300", mixture, "Adroit.horizon = 70")
    assert [count for count, _ in parts(wanted.config)] == [60, 30, 90, 120]
    pictures = collect(wanted, wanted.store(tmp_path), Lines())
    assert pictures.shape == (300, 32, 32, 3) and len(np.unique(pictures[::7], axis=0)) > 30
    begin, lengths = 0, []
    for kind, std in enumerate((0.0, 0.1, 0.3, None)):
        count = parts(wanted.config)[kind][0]
        episodes = []
        while sum(map(len, episodes)) < count:
            episodes.append(alone(wanted, kind, len(episodes), std))
        lengths += map(len, episodes)
        assert np.array_equal(pictures[begin : begin + count], np.concatenate(episodes)[:count]), f"kind {kind}"
        begin += count
    assert min(lengths) < 70 == max(lengths)


def test_all_cameras_count(tmp_path):
    wanted = pretraining("relocate", "Pretraining.pictures = 60", "Adroit.horizon = 8")
    assert wanted.env.cameras == ("cam1", "cam2", "cam3")
    pictures = collect(wanted, wanted.store(tmp_path), Lines())
    assert np.array_equal(pictures[:15], alone(wanted, 0, 0, 0.0)[:15])
    assert not np.array_equal(pictures[0], pictures[1])


def test_an_expert_may_act_from_pictures_of_its_own(tmp_path):
    """Its actions are replayed where the pictures are of another size."""
    lines = (
        "include 'method/npg.gin'\ninclude 'env/adroit_door.gin'\nExperiment.encoder = @VAE()\nVAE.weights = None\n"
        "VAE.latent = 4\nVAE.size = 64\nAdroit.look = 'fast'\nAdroit.horizon = 12\nExperiment.evaluators = ()\n"
        "Experiment.threads = 1\nExperiment.workers = 0\nExperiment.device = 'cpu'\nExperiment.num_envs = 2\n"
    )
    experiment = Experiment(placed(ginfile.loads(lines, str(tmp_path / "run.gin"))))
    envs = experiment.make_envs()
    agent = experiment.make_agent(experiment.encoder, envs, Inference(), 0)
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    facts = {**experiment.encoder_facts, "state_dim": envs.state_dim, "action_dim": envs.action_dim}
    envs.close()
    path = tmp_path / "sees.safetensors"
    policies.save(path, agent, experiment.config, facts)
    named = f"Pretraining.policy = {str(path)!r}"
    wanted = pretraining("door", named, "Pretraining.pictures = 40", "Adroit.horizon = 12")
    pictures = collect(wanted, wanted.store(tmp_path), Lines())
    expert = policies.load_policy(path)
    for kind, std in ((0, 0.0), (2, 0.3)):
        assert np.array_equal(pictures[10 * kind : 10 * kind + 10], alone(wanted, kind, 0, std, expert=expert)[:10])


def test_an_expert_of_another_task_is_refused():
    with pytest.raises(UserError, match=r"adroit_pen_expert is an expert of adroit_pen, and .* adroit_door"):
        pretraining("door", "Pretraining.policy = 'adroit_pen_expert'")


@contextmanager
def no_file_beyond(size):
    """The kernel refuses to let any file of this process grow beyond so many bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_what_is_there_and_the_rest_is_the_same(tmp_path, monkeypatch):
    settings = ("Pretraining.pictures = 200", "Adroit.horizon = 10")
    monkeypatch.setattr(collecting, "MEASURED", 0.0)
    whole = collect(wanted := pretraining("door", *settings), wanted.store(tmp_path / "whole"), first := Lines())
    assert re.fullmatch(r"[\d,]+ pictures/s: \d+ s for the others, and then the training", first.lines[-1])
    monkeypatch.undo()
    store, lines = wanted.store(tmp_path / "full"), Lines()
    with no_file_beyond(80 * store.size + 1000), pytest.raises(UserError) as told:  # in the middle of a piece
        collect(wanted, store, lines)
    assert "can't be written" in str(told.value) and "70 pictures are kept there" in str(told.value)
    again = wanted.store(tmp_path / "full")
    assert again.rows == 70 and again.path.stat().st_size == 70 * store.size
    with again.path.open("ab") as file:
        file.write(b"half of a piece, as kill -9 leaves it")
    assert np.array_equal(collect(wanted, again, lines), whole)
    assert "of which 70 are there" in lines.lines[-1]
    assert collect(wanted, wanted.store(tmp_path / "full"), told := Lines()) is not None and not told.lines


def test_too_many_pictures_are_refused_before_anything_is_made(tmp_path):
    wanted = pretraining("door", "Pretraining.pictures = 1_000_000_000")
    store = wanted.store(tmp_path / "runs")
    with pytest.raises(UserError, match=r"1,000,000,000 pictures are 3,072.0 GB, of which .* has room for") as told:
        collect(wanted, store, Lines())
    assert "fewer pictures" in str(told.value) and not list(tmp_path.iterdir())
    assert shutil.disk_usage(tmp_path).free < 3e12


def test_a_budget_ends_between_two_pieces(tmp_path):
    wanted = pretraining("door", "Pretraining.pictures = 200", "Adroit.horizon = 10")
    with pytest.raises(BudgetOver):
        collect(wanted, wanted.store(tmp_path), Lines(), deadline=0.0)
    assert wanted.store(tmp_path).rows == 0


def test_a_data_set_is_found_by_what_decides_it(tmp_path):
    same = pretraining("door", "Pretraining.epochs = 3", "VAE.latent = 16", "Pretraining.workers = 1").store(tmp_path)
    assert pretraining("door").store(tmp_path).fingerprint == same.fingerprint
    for other in ("Pretraining.seed = 1", "Adroit.look = 'default'", "Pretraining.noise = (0.1, 0.2)", "VAE.size = 64"):
        assert pretraining("door", other).store(tmp_path).fingerprint != same.fingerprint, other


def test_a_store_that_was_cut_short_is_told(tmp_path):
    store = PictureStore(tmp_path, 2, {"a": 1})
    rows = np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3)
    with store.open():
        store.append(rows, {"kind": 0})
        with (
            pytest.raises(UserError, match="another process is collecting"),
            PictureStore(tmp_path, 2, {"a": 1}).open(),
        ):
            pass
    again = PictureStore(tmp_path, 2, {"a": 1})
    assert (again.rows, again.progress) == (3, {"kind": 0}) and np.array_equal(again.read(), rows)
    assert json.loads((again.folder / FACTS).read_text())["facts"] == {"a": 1}
    files.cut(again.path, 30)
    for use in (again.read, again.open().__enter__, lambda: PictureStore(tmp_path, 2, {"a": 1})):
        with pytest.raises(UserError, match="was cut short: it has 30 bytes of 36; remove"):
            use()  # appending would fill the hole with black pictures
    assert not Path(PictureStore(tmp_path, 2, {"a": 2}).folder).exists()
