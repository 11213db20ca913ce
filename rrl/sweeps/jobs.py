"""The runs of a sweep, and how each goes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rrl.config import ginfile
from rrl.envs.base import EnvFactory
from rrl.registry import build
from rrl.run.experiment import Experiment
from rrl.score import Score
from rrl.store.results import Status
from rrl.sweeps.space import Point


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    """Unique in the sweep, fit for a file name."""
    source: str
    """The gin file."""
    point: Point
    """What the grid sets in it."""
    config: Experiment.Config
    """The run's configuration, automatic choices still open."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal configurations, wherever their project lies: by it, a sweep knows its runs when it is called
        again."""
        return hashlib.sha256(ginfile.dumps(self.config, Path(), own_scopes=False).encode()).hexdigest()[:16]

    @cached_property
    def score(self) -> Score:
        """What its task is judged by."""
        env: EnvFactory = build(self.config.env)
        return env.score


@dataclass
class Entry:
    """A job and how it goes."""

    job: Job
    state: Status | str = "waiting"
    """`waiting`, or a run's status."""
    reason: str = ""
    folder: Path | None = None
    """The run's folder, once it has one."""
    began: float = 0.0
    """Of this process' clock; 0: not in this call."""
    seconds: float = 0.0
    """How long it ran in this call."""
    log_from: int = 0
    """Where this call's part of its log begins, in bytes."""
