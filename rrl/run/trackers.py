"""Whom a run is told to: MLflow always, and the trackers of `Experiment.trackers` beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rrl.registry import build
from rrl.store.tracking import Dataset, MLflowTracker, Row
from rrl.trackers.base import Run, Tracker


class Trackers:
    """All of them, as one `Tracking`. What one of the others raises is told once as a note and ends nothing."""

    def __init__(self, mlflow: MLflowTracker, others: Iterable[Tracker.Config], run: Run) -> None:
        self.mlflow = mlflow
        self.run_id, self.uri = mlflow.run_id, mlflow.uri
        self._others: list[Tracker] = [build(config, run=run) for config in others]
        self._told: set[str] = set()

    def begin(self, say: Callable[[str], None]) -> None:
        """Open the others, and say where each is to be seen; one that can't be opened is left out."""
        for other in list(self._others):
            try:
                other.recorded = other.begin()
                say(f"{type(other).__name__}: {other.where()}")
            except Exception as error:
                self._others.remove(other)
                self._note(f"{type(other).__name__} could not begin ({error}): it won't show this run")

    def params(self, params: Mapping[str, str]) -> None:
        """To MLflow: the others have them since they began."""
        self.mlflow.params(params)

    def tags(self, tags: Mapping[str, str]) -> None:
        """To all."""
        self.mlflow.tags(tags)
        self._each("facts", lambda other: other.tags(tags))

    def dataset(self, dataset: Dataset) -> None:
        """To MLflow; the tags tell it too."""
        self.mlflow.dataset(dataset)

    def metrics(self, rows: Sequence[Row]) -> None:
        """To all: each leaves out what it holds."""
        self.mlflow.metrics(rows)
        self._each("metrics", lambda other: other.metrics(rows))

    def artifact(self, path: Path, folder: str = "") -> None:
        """To all."""
        self.mlflow.artifact(path, folder)
        self._each(path.name, lambda other: other.artifact(path, folder))

    def text(self, text: str, name: str) -> None:
        """To MLflow."""
        self.mlflow.text(text, name)

    def end(self, status: str) -> None:
        """To all, MLflow first."""
        self.mlflow.end(status)
        self._each("end", lambda other: other.end(status))
        self._others.clear()

    def _each(self, what: str, call: Callable[[Tracker], None]) -> None:
        for other in self._others:
            try:
                call(other)
            except Exception as error:
                self._note(f"{type(other).__name__} did not take this run's {what} ({error}); the training goes on")

    def _note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warnings.warn(text, stacklevel=3)
