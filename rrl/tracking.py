"""Where runs are recorded. `metrics.jsonl` in the run's folder is the truth; MLflow shows it."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rrl.registry import UserError

EXPERIMENT = "rrl"


@dataclass(frozen=True)
class Row:
    """Metrics at one moment of a run."""

    step: int
    """Environment steps of training so far."""
    time: int
    """Milliseconds since 1970."""
    metrics: Mapping[str, float]


class Log:
    """The rows of one run, in a file that is cut back to the last checkpoint on resume."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        lines = path.read_text().splitlines()[:rows] if path.exists() else []
        if len(lines) < rows:
            raise UserError(f"{path} holds {len(lines)} rows, the checkpoint {rows}: the file was damaged")
        self.rows = [Row(**json.loads(line)) for line in lines]
        part = path.with_name(path.name + ".part")
        part.write_text("".join(f"{line}\n" for line in lines))
        part.replace(path)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a row, on disk when this returns."""
        row = Row(step, int(time.time() * 1000), dict(metrics))
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return next((row.metrics[name] for row in reversed(self.rows) if name in row.metrics), None)


class Tracker(Protocol):
    """Shows a run to people. Nothing it does may fail the training: it warns instead."""

    run_id: str

    def params(self, params: Mapping[str, str]) -> None:
        """Settings, once."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Facts about the run; later values replace earlier ones."""

    def metrics(self, rows: Sequence[Row]) -> None:
        """All rows of the run so far; those already recorded are not recorded twice."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file."""

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""


def store() -> str:
    """The MLflow store: `MLFLOW_TRACKING_URI`, or `mlflow.db` in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def quiet_mlflow() -> None:
    """Neither telemetry nor migration chatter from MLflow, unless the user asked for it."""
    import logging

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


class MLflowTracker:
    """One MLflow run, through its client API (thread-safe, no global active run)."""

    def __init__(self, uri: str, run_id: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.uri = uri
        self.run_id = run_id
        self._sent: int | None = None

    @classmethod
    def start(cls, name: str, uri: str | None = None) -> MLflowTracker:
        """Create a run. UserError if the store can't be reached: better now than after hours."""
        quiet_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri = uri or store()
        client = MlflowClient(uri)
        try:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                # A local store keeps artifacts beside it, wherever `rrl ui` is started later.
                local = (
                    (Path(uri[10:]).parent / "mlartifacts").as_uri() if uri.startswith("sqlite:///") else None
                )
                experiment_id = client.create_experiment(EXPERIMENT, artifact_location=local)
            else:
                experiment_id = experiment.experiment_id
            run = client.create_run(experiment_id, run_name=name)
        except (MlflowException, OSError) as error:
            raise UserError(f"the MLflow store {uri} can't be used: {error}") from error
        return cls(uri, run.info.run_id)

    @classmethod
    def resume(cls, uri: str, run_id: str) -> MLflowTracker:
        """Go on with an existing run."""
        quiet_mlflow()
        tracker = cls(uri, run_id)
        tracker._safely("resume", lambda: tracker.client.update_run(run_id, status="RUNNING"))
        return tracker

    def params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entities = [Param(key, value) for key, value in params.items()]
        self._safely("params", lambda: self.client.log_batch(self.run_id, params=entities))

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in tags.items()]
        self._safely("tags", lambda: self.client.log_batch(self.run_id, tags=entities))

    def metrics(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        # After a resume nobody knows which rows arrived. Sending all again is safe: MLflow's key of a point
        # is (run, metric, time, step, value), and the times are the file's.
        first = self._sent or 0
        batch = [
            Metric(key, value, row.time, row.step)
            for row in rows[first:]
            for key, value in row.metrics.items()
        ]

        def send() -> None:
            for start in range(0, len(batch), 900):  # the API takes 1000 at once
                self.client.log_batch(self.run_id, metrics=batch[start : start + 900])

        if self._safely("metrics", send):
            self._sent = len(rows)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._safely("artifact", lambda: self.client.log_artifact(self.run_id, str(path), folder or None))

    def end(self, status: str) -> None:
        self._safely("status", lambda: self.client.set_terminated(self.run_id, status))

    def _safely(self, what: str, call: Any) -> bool:
        try:
            call()
        except Exception as error:
            warnings.warn(
                f"MLflow did not take this run's {what} ({error}); the training goes on", stacklevel=3
            )
            return False
        return True
