"""Run folders with plausible numbers, as `rrl run` leaves them, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rrl import ginfile, results
from rrl.envs.adroit import Adroit
from rrl.experiment import Experiment
from rrl.statistics import wilson


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
    folder = root / run_id
    folder.mkdir(parents=True)
    (folder / "config.gin").write_text(ginfile.dumps(config))
    facts = {"uri": "sqlite:///mlflow.db", "run_id": run_id, "name": name or f"{source}-seed{seed}"}
    facts |= {"source": source, "overrides": list(overrides), "started": started, "versions": {}}
    (folder / "run.json").write_text(json.dumps(facts))
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
        text = "".join(json.dumps({"step": s, "time": 1, "metrics": m}) + "\n" for s, m in lines)
        (folder / "metrics.jsonl").write_text(text)
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
