"""What a run cost: its own times added up, and multiply-adds as torch counts them, over all its resumes."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sac_agents
from helpers.measured import lasting

from rrl.agents.sac import SAC
from rrl.config import ginfile
from rrl.encoders import VAE, State
from rrl.encoders.task import save_encoder
from rrl.machine.console import Display
from rrl.machine.cuda_graphs import Replayed
from rrl.machine.multiply_adds import counted, counting
from rrl.run import loop
from rrl.run.experiment import Experiment
from rrl.run.ledger import COMPUTE, SECONDS, Ledger
from rrl.run.placement import resolve
from rrl.store import checkpoint

SIDE, LATENT, JOINTS, ACTIONS = 32, 8, 24, 28
SMALL = (
    "Experiment.precision = 'fp32'",
    "Experiment.backend = 'torch'",
    "Experiment.threads = 1",
    "Experiment.workers = 0",
    "Experiment.num_envs = 3",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 1",
    "Adroit.horizon = 5",
    "DAPG.trajectories = 4",
    "DAPG.bc_epochs = 1",
    "DAPG.policy_hidden = (16,)",
    "DAPG.value_hidden = (16,)",
    "DAPG.value_batch = 4",
    "DemoSet.episodes = 1",
)


class Silent:
    """A tracker of nothing."""

    run_id = "0"

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE's file that says what its training took."""
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    vae = VAE(VAE.Config(weights=None, latent=LATENT, size=SIDE), cameras=1)
    save_encoder(path, vae, {"env": {"env": "adroit_door"}}, {"seconds": 7.5, "multiply_adds": 5e9})
    return path


def train(weights: Path, folder: Path, iterations: int) -> list[dict[str, float]]:
    """The metrics of its rows, after as many iterations in all."""
    folder.mkdir(exist_ok=True)
    settings = (*SMALL, f"VAE.weights = {str(weights)!r}", f"Experiment.iterations = {iterations}")
    config = resolve(ginfile.load("adroit_door_vae", settings))  # type: ignore[arg-type]
    with Display() as display:
        assert loop.train(Experiment(config), folder, Silent(), display) == "finished"  # type: ignore[arg-type]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines]


@pytest.fixture(scope="module")
def whole(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return train(weights, tmp_path_factory.mktemp("whole"), 2)


@pytest.fixture(scope="module")
def begun(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after its first update."""
    folder = tmp_path_factory.mktemp("begun")
    train(weights, folder, 1)
    return folder


def test_seconds_are_the_rows_times_added_up(whole: list[dict[str, float]]) -> None:
    assert [row.get("iteration", 0) for row in whole] == [0, 1, 2]
    for part in SECONDS:
        spent = np.cumsum([row.get(f"time/{part}", 0.0) for row in whole])
        assert [row[f"cost/{part}_seconds"] for row in whole] == pytest.approx(spent.tolist())
        assert spent[-1] > 0, part
    last = whole[-1]
    assert last["cost/pretrain_seconds"] == 7.5 and last["cost/pretrain_multiply_adds"] == 5e9
    assert last["cost/compute_seconds"] == pytest.approx(sum(last[f"cost/{part}_seconds"] for part in COMPUTE))
    assert last["cost/since_step"] == 0
    assert 100 < whole[0]["cost/peak_memory_mb"] <= last["cost/peak_memory_mb"] < 10_000


def test_multiply_adds_are_those_of_all_that_was_encoded_and_acted_on(whole: list[dict[str, float]]) -> None:
    channels = (3, 32, 64, 128, 256, 512)
    sides = [SIDE // 2 ** (n + 1) for n in range(5)]
    picture = sum(side**2 * 9 * a * b for side, (a, b) in zip(sides, pairwise(channels), strict=True)) + 512 * LATENT
    action = (LATENT + JOINTS) * 16 + 16 * ACTIONS
    # Four episodes of five steps in three environments, twice: all three are encoded at the first reset, after each of
    # the two rounds of five steps, and when one of them begins its second episode.
    encoded, acted = 3 * (1 + 5 + 1 + 5), 3 * (5 + 5)
    for row, times in ((whole[1], 1), (whole[2], 2)):
        assert row["cost/encode_multiply_adds"] == times * encoded * picture
        assert row["cost/act_multiply_adds"] == times * acted * action
        parts = sum(row[f"cost/{part}_multiply_adds"] for part in ("encode", "act", "update", "pretrain"))
        assert row["cost/multiply_adds"] == parts
    assert whole[0]["cost/multiply_adds"] == 5e9
    assert whole[2]["cost/update_multiply_adds"] == 2 * whole[1]["cost/update_multiply_adds"] > 0


def test_a_resumed_run_goes_on_with_its_ledger(
    whole: list[dict[str, float]], begun: Path, weights: Path, tmp_path: Path
) -> None:
    shutil.copytree(begun, tmp_path / "run")
    rows = train(weights, tmp_path / "run", 2)
    assert [lasting(row) for row in rows] == [lasting(row) for row in whole]
    for part in SECONDS:
        spent = sum(row.get(f"time/{part}", 0.0) for row in rows)
        assert rows[-1][f"cost/{part}_seconds"] == pytest.approx(spent)


def test_a_run_from_before_there_was_one_says_where_it_begins(begun: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.safetensors"
    tensors, values = checkpoint.load_file(file)
    del values["cost"]
    checkpoint.save_file(file, tensors, values)
    last = train(weights, tmp_path / "run", 2)[-1]
    assert last["cost/since_step"] == 20
    assert last["cost/update_seconds"] == last["time/update"]


def test_the_first_updates_tell_what_the_others_cost_and_change_nothing() -> None:
    """An agent that learns parts at every second and third update, and catches up on many in the beginning."""
    settings: dict[str, Any] = {"actor_every": 2, "target_every": 3, "init_steps": 11, "catch_up": True}
    watched, plain = (sac_agents.make(SAC, **settings) for _ in range(2))
    ledger, rollout = Ledger(State(State.Config(), cameras=0), None), sac_agents.some_rollout(watched)
    spent = 0.0
    for _ in range(4):  # 11 updates each
        ledger.learn(watched, rollout, whole=False)
        spent += counted(lambda: plain.update(rollout))
    assert watched.updates == plain.updates == 44 and len(ledger._counted) == 2
    assert ledger.multiply_adds["update"] == pytest.approx(spent, rel=0.1)  # in catching up every part learns each time
    one, other = watched.snapshot()[0], plain.snapshot()[0]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_graph_would_hide_is_computed_plainly_while_it_is_counted() -> None:
    replayed, x = Replayed(graphs=True), torch.ones(2, 3)
    with counting() as count:
        for _ in range(5):
            replayed("product", lambda x: {"y": x @ x.T}, x)
    assert count.total == 5 * 2 * 3 * 2 and not replayed.recorded
