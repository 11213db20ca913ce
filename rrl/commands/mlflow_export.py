"""`rrl export --mlflow`: a run's policy as a model in its MLflow run, for programs that load models from there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rrl.commands.policies import Say, packed, policy_of, run_of
from rrl.envs.base import EnvFactory
from rrl.registry import build
from rrl.run import policies
from rrl.run.saving import POLICY
from rrl.store import checkpoint, results
from rrl.store.mlflow_models import log_policy
from rrl.store.tracking import store_of


def export(source: str, say: Say, *, best: bool = False, register: str | None = None) -> str:
    """Log it, and say how it is loaded; returns its address. `register`: its name in the model registry, whose next
    version it becomes."""
    run = run_of(source)
    path = policy_of(run, best)
    config: Any = policies.config_of(path)
    env: EnvFactory = build(config.env)
    tensors, values, needed = packed(run, lambda _: None, best=best)
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {"state": ("float32", (values["state_dim"] - env.privileged,))}
    if (frames := config.encoder.frames()) is not None:
        inputs["frames"] = ("uint8", (frames.size, frames.size, 3 * len(env.cameras)))
    said = results.facts_of(run.folder)
    with tempfile.TemporaryDirectory() as passing:
        checkpoint.save_file(file := Path(passing, POLICY), tensors, values)
        address, number = log_policy(
            store_of(said["uri"], results.project(run.folder)),
            said["run_id"],
            path.stem,
            file,
            needed,
            inputs,
            values["action_dim"],
            register,
        )
    say(f"{address}: {run.name} after {values['iteration']} updates, in the MLflow run {run.run_id[: results.ID]}")
    if number is not None:
        say(f"registered: models:/{register}/{number}")
    says = ", ".join(f"{name} {kind} [N, {', '.join(map(str, shape))}]" for name, (kind, shape) in inputs.items())
    say(f"inputs: {says}; output: the mean action, float32 [N, {values['action_dim']}]")
    say("where it is loaded, rrl must be installed:")
    say(f'  model = mlflow.pyfunc.load_model("{address}")')
    return address
