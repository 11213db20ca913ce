"""The interface of trackers: what a run tells of itself, for another program's pages."""

from __future__ import annotations

import abc
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from rrl.registry import Component, Mistake, Parts
from rrl.store.results import ID
from rrl.store.tracking import Row

Project = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A group of runs in a tracker's pages: a name that every one of them takes."""


@dataclass(frozen=True)
class Run:
    """What a tracker is told of the run that it shows."""

    run_id: str
    """32 hexadecimal digits; the same after a resume."""
    name: str
    """For people; two runs may share it."""
    project: Path
    """The folder that holds `runs/`."""
    sweep: str | None
    """Run id of the sweep that it belongs to."""
    note: str
    """What the run is and how it is repeated, in Markdown."""
    params: Mapping[str, str]
    """Its settings, flat: `agent.step_size`, `encoder`, ..."""
    resumed: bool
    """Has an earlier process begun it?"""

    @property
    def own_name(self) -> str:
        """The name with the beginning of the id: no other run's, and fit for a file."""
        return f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', self.name)}-{self.run_id[:ID]}"


class Tracker(Component, abc.ABC):
    """Shows a run beside MLflow. `metrics.jsonl` stays the truth: whatever a tracker raises once the run is made is
    told as a note, and the training goes on."""

    kind: ClassVar[str] = "tracker"
    package: ClassVar[str]
    """What it needs, as it is imported."""
    extra: ClassVar[str]
    """Of rrl, that brings the package."""

    class Config(Component.Config):
        """Settings shared by all trackers."""

        def refusal(self) -> str | None:
            """Why it can't be used here, with the remedy, asked before a run begins; None: it can."""
            cls = self.component
            assert issubclass(cls, Tracker)
            if importlib.util.find_spec(cls.package):
                return None
            return f"{cls.__name__} needs the package {cls.package}: pip install 'rrl[{cls.extra}]'"

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """The same tracker twice."""
            alike = [other for other in run.trackers if other.component is self.component]
            if len(alike) > 1 and alike[0] is self:
                name = self.component.__name__
                yield Mistake("trackers", f"{name} is there twice: each would record the run", "remove one")

    def __init__(self, config: Config, run: Run) -> None:
        """Nothing is opened or imported yet: see `begin`."""
        self.config = config
        self.run = run
        self.recorded = 0
        """Rows of the run's `metrics.jsonl` that the tracker holds."""

    @abc.abstractmethod
    def begin(self) -> int:
        """Open the tracker's own run, or the one that an earlier process began. Returns how many of the run's rows it
        holds already: none of them is recorded again."""

    @abc.abstractmethod
    def record(self, row: Row) -> None:
        """One more row: finite numbers by name."""

    def flush(self) -> None:
        """Called after some rows: what was recorded should reach the disk or the server now."""

    def metrics(self, rows: Sequence[Row]) -> None:
        """All rows of the run so far; those that it holds are left out."""
        for row in rows[self.recorded :]:
            self.record(row)
            self.recorded += 1
        self.flush()

    def tags(self, tags: Mapping[str, str]) -> None:
        """Facts about the run; later values replace earlier ones."""

    def artifact(self, path: Path, folder: str) -> None:
        """A file of the run; the same one may come again. Kept or shown if that makes sense here."""

    @abc.abstractmethod
    def end(self, status: str) -> None:
        """FINISHED (or the budget was over), FAILED or KILLED. Must return within a minute or so."""

    @abc.abstractmethod
    def where(self) -> str:
        """How to look at it, in a few words, once it has begun."""
