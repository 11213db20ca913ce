"""Run folders with plausible numbers, as `rrl run` leaves them, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rrl.config import ginfile
from rrl.envs.adroit import Adroit
from rrl.envs.dmcontrol import DMControl
from rrl.run.experiment import Experiment
from rrl.statistics import wilson
from rrl.store import results


def make_run(
    root: Path,
    run_id: str,
    source: str = "adroit_door_state",
    overrides: Sequence[str] = (),
    *,
    seed: int = 0,
    updates: int = 6,
    steps: int = 1000,
    top: float = 95.0,
    pace: float = 2.0,
    status: str = "FINISHED",
    reason: str = "",
    evaluate: bool = True,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    started: str = "2026-10-01T12:00:00+00:00",
    rows: bool = True,
) -> Path:
    """A run whose success rises to `top` percent within about `pace` updates; `steps` an update."""
    done = [f"Experiment.seed = {seed}", "Experiment.device = 'cpu'", "Experiment.threads = 2"]
    config = ginfile.load(source, [*overrides, *done, "Experiment.workers = 2", "Experiment.groups = 1"])
    assert isinstance(config, Experiment.Config)
    assert isinstance(config.env, Adroit.Config)
    facts = {"name": name or f"{source}-seed{seed}", "overrides": list(overrides), "started": started}
    folder = begin(root, run_id, source, config, facts)
    encoder = config.encoder.component.__name__
    untrained = getattr(config.encoder, "weights", "imagenet") is None
    said = {
        **Adroit(config.env).facts(),
        "encoder": f"{encoder} (UNTRAINED)" if untrained else encoder,
        "renderer": "none" if encoder == "State" else "llvmpipe",
        "device": "x86_64",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "torch": "2.9.1",
        "rrl": "0.2.0",
        "demos": "adroit_door-25",
        "demos.checksum": "a1b2c3d4e5f60718",
        "demos.mismatches": "none",
    }
    if rows:
        (folder / "tags.json").write_text(json.dumps(said | dict(tags or {})))
        lines = list(metrics(seed, updates, steps, top, pace, encoder != "State", evaluate))
        if status != "FINISHED":
            lines = [(step, m) for step, m in lines if "final/success" not in m]
        log(folder, lines)
    results.write_status(folder, status, reason)
    return folder


def begin(root: Path, run_id: str, source: str, config: Experiment.Config, facts: Mapping[str, object]) -> Path:
    """The folder of a run that has not measured anything."""
    folder = root / run_id
    folder.mkdir(parents=True)
    results.write_config(folder, config)
    known = {"uri": "sqlite:///mlflow.db", "run_id": run_id, "source": source}
    known |= {"versions": {"torch": "2.9.1", "mujoco": "3.2"}}
    (folder / "run.json").write_text(json.dumps({**known, **facts}))
    return folder


def log(folder: Path, lines: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Write (environment steps, metrics) of each row."""
    text = "".join(json.dumps({"step": s, "time": 1, "metrics": m}) + "\n" for s, m in lines)
    (folder / "metrics.jsonl").write_text(text)


def make_scored(
    root: Path,
    run_id: str,
    source: str,
    scores: Mapping[int, float],
    overrides: Sequence[str] = (),
    *,
    seed: int = 0,
    steps: int | None = None,
    every: int = 50_000,
    status: str = "FINISHED",
    reason: str = "",
) -> Path:
    """A run of DMControl: evaluations of 10 episodes at these environment steps, a row every `every` steps up
    to `steps` (None: the last evaluation). A round takes 100 s: 60 of learning, 5 of each part of stepping, 8
    of the rest, 12 of evaluating."""
    done = [f"Experiment.seed = {seed}", "Experiment.device = 'cpu'", "Experiment.threads = 2"]
    config = ginfile.load(source, [*overrides, *done, "Experiment.groups = 1"])
    assert isinstance(config, Experiment.Config)
    assert isinstance(config.env, DMControl.Config)
    facts = {"name": f"{source}-seed{seed}", "overrides": list(overrides)}
    folder = begin(root, run_id, source, config, facts | {"started": "2026-10-02T12:00:00+00:00"})
    encoder = config.encoder.component.__name__
    said = {"env": f"dmc_{config.env.domain}_{config.env.task}", "protocol": "suite", "encoder": encoder}
    said |= {"renderer": "none" if encoder == "State" else "llvmpipe", "device": "x86_64"}
    (folder / "tags.json").write_text(json.dumps(said | {"git_commit": "0123456789abcdef", "mujoco": "3.2"}))
    lines = []
    for step in range(0, (max(scores, default=0) if steps is None else steps) + 1, every):
        row: dict[str, float] = {}
        if step in scores:
            row |= {"eval/return": scores[step], "eval/return_std": 5.0, "eval/episodes": 10.0}
        if step:
            row |= {"train/return": 0.9 * step**0.5, "train/episodes": 50.0, "iteration": step / every}
            row |= {f"time/{part}": 5.0 for part in ("simulate", "render", "encode", "act")}
            row |= {"time/update": 60.0, "time/iteration": 100.0, "time/steps_per_second": every / 88.0}
        lines.append((step, row))
    log(folder, lines)
    results.write_status(folder, status, reason)
    return folder


def metrics(
    seed: int, updates: int, steps: int, top: float, pace: float, pictures: bool, evaluate: bool
) -> list[tuple[int, dict[str, float]]]:
    """(environment steps, metrics) of each row of such a run."""
    rng = np.random.default_rng([seed, updates, int(top * 10), int(pictures)])
    found: list[tuple[int, dict[str, float]]] = []

    def measured(space: str, chance: float, episodes: int, suffix: str = "") -> dict[str, float]:
        wins = int(rng.binomial(episodes, chance))
        low, high = wilson(wins, episodes)
        return {
            f"{space}/success{suffix}": 100 * wins / episodes,
            f"{space}/success_low{suffix}": 100 * low,
            f"{space}/success_high{suffix}": 100 * high,
            f"{space}/success_rrl{suffix}": 100 * max(wins - 1, 0) / episodes,
            f"{space}/return{suffix}": 30.0 * wins,
            f"{space}/episodes{suffix}": float(episodes),
        }

    for update in range(updates + 1):
        chance = top / 100 * (1 - 0.7 * np.exp(-update / pace))
        row = measured("eval", chance, 25) if evaluate else {}
        if update:
            row |= measured("train", 0.9 * chance, 50)
            parts = (
                {"simulate": 2.0, "render": 3.0, "encode": 4.0, "act": 0.5}
                if pictures
                else {"simulate": 2.0, "render": 0.0, "encode": 0.0, "act": 0.5}
            )
            scaled = {k: v * steps / 10_000 * rng.uniform(0.9, 1.1) for k, v in parts.items()}
            sampling = sum(scaled.values()) * 1.05
            learn, fit = 0.2 * steps / 10_000 + 0.1, 0.1 * steps / 10_000
            row |= {f"time/{k}": v for k, v in scaled.items()}
            row |= {"time/sampling": sampling, "time/policy_update": learn, "time/value_fit": fit}
            row |= {
                "time/iteration": 1.2 * (sampling + learn + fit),
                "time/steps_per_second": steps / sampling,
            }
            row |= {"iteration": float(update)}
        if row:
            found.append((update * steps, row))
    if evaluate:
        last = measured("final", top / 100, 100) | measured("final", 0.9 * top / 100, 100, "_sampled")
        found.append((updates * steps, last))
    return found
