"""What a result can't be judged without: a run's title and its tags."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from rrl.config import ginfile
from rrl.demos import DemoSet
from rrl.encoders import backends
from rrl.encoders.base import Inference
from rrl.run.experiment import Experiment
from rrl.store import files
from rrl.store.results import OTHERWISE, TAGS, project
from rrl.store.tracking import Dataset, Tracking

RESUMED = "resumed."
"""Tags of what changed on the way begin so."""


def title(experiment: Experiment) -> str:
    """One line that says what a curve shows and what it can't be compared with."""
    config, facts = experiment.config, experiment.env.facts()
    text = f"{experiment.env.name}  {config.encoder.label()}  {config.agent.label()}"
    for name in ("protocol", "reward", "look"):
        if name in facts and (name != "look" or experiment.frames is not None):
            text += f"  {name} {facts[name]}"
    if faults := experiment.env.at_fault():
        text += f"  {', '.join(faults)}"
    return text + f"  seed {config.seed}"


def tags(experiment: Experiment, inference: Inference, renderer: str) -> dict[str, str]:
    """Facts for MLflow and for reports, by name."""
    config, encoder = experiment.config, experiment.encoder
    facts = {
        **experiment.env.facts(),
        **{f"encoder.{k}": v for k, v in (experiment.encoder_facts | backends.facts(inference)).items()},
        **{name: value for name, value in experiment.versions.items() if name.startswith("code of ")},
        "encoder": config.encoder.label(),
        "agent": config.agent.label(),
        "encoder.trained": str(encoder.trained).lower(),
        "device": torch.cuda.get_device_name() if experiment.device.type == "cuda" else platform.machine(),
        "renderer": renderer,
        "iterations": str(config.iterations),
        "git_commit": git_commit(),
        "rrl": version("rrl"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for tag, serious in OTHERWISE.items():
        if texts := [text for text, other_task in encoder.mismatches(experiment.env) if other_task == serious]:
            facts[tag] = "; ".join(texts)
    if experiment.demos is not None:
        facts |= {"demos": experiment.demos.name, **{f"demos.{k}": v for k, v in experiment.demos.facts().items()}}
    return facts


def record(experiment: Experiment, inference: Inference, renderer: str, folder: Path, tracker: Tracking) -> None:
    """Tags go to MLflow and, for reports, beside the run; a resumed run tells all its commits."""
    values = tags(experiment, inference, renderer)
    known = files.read_json(folder / TAGS)
    values |= {name: value for name, value in known.items() if name.startswith(RESUMED)}
    before = str(known.get("git_commit", values["git_commit"]))
    if before.rpartition("then ")[2] != values["git_commit"]:
        values["git_commit"] = f"{before}, then {values['git_commit']}"
    files.write_json(folder / TAGS, values)
    tracker.tags(values)
    if experiment.demos is not None:
        told = ginfile.flatten(experiment.demos.config, project(folder))["source"]
        tracker.dataset(_dataset(experiment.demos, experiment.identity["demos"], told))


def _dataset(demos: DemoSet, checksum: str, source: str) -> Dataset:
    """The demonstrations as MLflow lists a run's data; `source` as the settings tell it."""
    episodes, steps = len(demos.demos), int(demos.demos.lengths.sum())
    profile = {"episodes": episodes, "steps": steps, "origin": demos.demos.origin}
    return Dataset(demos.name, checksum, source if demos.config.source else demos.name, profile)


def moved(folder: Path, changes: Iterable[tuple[str, object, object]], steps: int) -> None:
    """Put down that a run goes on elsewhere than it began, after so many steps: (setting, before, now) each.
    `record` tells it."""
    known = files.read_json(folder / TAGS)
    for name, then, now in changes:
        told = known.get(RESUMED + name)
        known[RESUMED + name] = f"{f'{told}; ' if told else ''}{then} -> {now} at step {steps}"
    files.write_json(folder / TAGS, known)


def git_commit() -> str:
    """Of this project's checkout; an installed package is told by its version."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return "unknown"
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
