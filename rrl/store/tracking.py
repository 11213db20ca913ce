"""Where runs are recorded. `metrics.jsonl` in the run's folder is the truth; MLflow shows it."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pydantic
from pydantic import Field

from rrl.registry import UserError
from rrl.store import files
from rrl.store.delivery import Deliveries
from rrl.store.schema import parsed, text_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "rrl"
SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""Folder beside a local store."""
NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as a run's description."""
STORE = "MLFLOW_TRACKING_URI"
"""The variable that names the store."""
HIDDEN = "***"
"""Stands in a password's place."""
LARGEST = 1e100
"""Of a metric: what is computed of several of them stays finite."""
TURN = 20.0
"""Seconds to wait for another process that writes to a local store."""
NO_NAME = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no metric's name."""


@dataclass(frozen=True)
class Row:
    """Metrics at one moment of a run."""

    step: int
    """Environment steps of training so far."""
    time: int
    """Milliseconds since 1970."""
    metrics: Mapping[str, float]


class _Row(pydantic.BaseModel):
    """A row as it is read."""

    model_config = pydantic.ConfigDict(strict=True)

    step: Annotated[int, Field(ge=0, le=2**53)]
    time: Annotated[int, Field(ge=0, le=2**53)]
    metrics: dict[str, float]


def row_of(line: str) -> Row:
    """The row that a line of `metrics.jsonl` says, without NaN and infinities, which earlier versions wrote: as if they
    had not been measured. ValueError for what is no row."""
    row = _Row.model_validate(parsed(line))
    metrics = {name: value for name, value in row.metrics.items() if math.isfinite(value)}
    if any(abs(value) > LARGEST for value in metrics.values()):
        raise ValueError(f"a metric is beyond {LARGEST:g}")
    return Row(row.step, row.time, metrics)


class Log:
    """The rows of one run, in a file that is cut back to the last checkpoint on resume."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        try:
            lines = text_of(path).splitlines(keepends=True) if path.exists() else []
            self.rows = [row_of(line) for line in lines[:rows]]
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from error
        if len(lines) < rows:
            raise UserError(f"{path} holds {len(lines)} rows, the checkpoint {rows}: the file was damaged")
        if len(lines) > rows:
            files.cut(path, sum(len(line.encode()) for line in lines[:rows]))

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a row of finite metrics, on disk when this returns; nothing for no metrics."""
        if not metrics:
            return
        row = Row(step, int(time.time() * 1000), dict(metrics))
        files.append(self.path, json.dumps(asdict(row), allow_nan=False) + "\n")
        self.rows.append(row)


@dataclass(frozen=True)
class Dataset:
    """What a run learns from beside its own episodes."""

    name: str
    digest: str
    """Checksum of its content, of at most 36 characters."""
    source: str
    """Where it is: a name that rrl knows, or a path from the project on."""
    profile: Mapping[str, object]
    """What people want to know of it, such as its number of episodes."""


class LostRun(UserError):
    """A store that answers does not know a run."""


class Tracking(Protocol):
    """Shows a run to people. Nothing it does may fail the training: it warns instead."""

    run_id: str

    def params(self, params: Mapping[str, str]) -> None:
        """Settings, once."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Facts about the run; later values replace earlier ones."""

    def dataset(self, dataset: Dataset) -> None:
        """What the run learns from; the same one may come again."""

    def metrics(self, rows: Sequence[Row]) -> None:
        """All rows of the run so far; those already recorded are not recorded twice."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file."""

    def text(self, text: str, name: str) -> None:
        """Keep a text."""

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""


def store(given: str | None = None) -> str:
    """The MLflow store at the address `given`, or else `MLFLOW_TRACKING_URI`, its password masked, or `mlflow.db` in
    the working directory.

    UserError for MLflow's file store: it would record points twice after a resume.
    """
    uri = masked(given or os.environ.get(STORE) or f"{SQLITE}mlflow.db")
    if path := local(uri):
        return address(path.absolute())  # a run may be resumed from elsewhere
    if uri.startswith("file:") or "://" not in uri:
        raise UserError(
            f"{'--to' if given else STORE} is {uri}, a store of plain files, which MLflow itself gave up; use "
            "sqlite:///mlflow.db, or the address of a server"
        )
    return uri


def masked(uri: str) -> str:
    """An address as it may be shown and kept: without its password."""
    try:
        parts = urlsplit(uri)
        password = parts.password
    except ValueError:  # no address: told where it is used
        return uri
    if not password:
        return uri
    _, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{parts.username or ''}:{HIDDEN}@{host}").geturl()


def unmasked(uri: str) -> str:
    """The address with its password, which only `MLFLOW_TRACKING_URI` tells. UserError where that is another one."""
    known, gap = os.environ.get(STORE, ""), f":{HIDDEN}@"
    if masked(known) == uri and gap not in known:
        return known
    if gap in uri:
        raise UserError(f"passwords of MLflow stores are not kept: set {STORE} to {uri} with its password in place")
    return uri


def _told(error: Exception) -> str:
    """What an error says, without the password that MLflow repeats with the address."""
    known = os.environ.get(STORE, "")
    return str(error).replace(known, masked(known)) if known else str(error)


def local(uri: str) -> Path | None:
    """The file of a store on this machine; None for a server. UserError for a malformed address."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        database = make_url(uri).database
    except ArgumentError as error:
        raise UserError(f"{uri} is no address of an MLflow store, such as sqlite:///mlflow.db: {error}") from error
    return Path(database) if database else None


def address(path: Path) -> str:
    """The store in a file, as MLflow and SQLAlchemy read it: a `?` or a `%20` in a folder's name means something to
    them. UserError where they can't be given such a name."""
    from sqlalchemy.engine import URL

    plain = SQLITE + str(path)
    # With its driver's name, for MLflow makes the folder of what follows `sqlite:///` as it stands.
    quoted = URL.create("sqlite+pysqlite", database=str(path)).render_as_string(hide_password=False)
    uri = next((uri for uri in (plain, quoted) if local(uri) == path), None)
    if uri is None:
        raise UserError(f"MLflow takes no store in {path.parent}: set {STORE} to one elsewhere")
    return uri


def kept(uri: str, project: Path) -> str:
    """A store's address as a folder in a project keeps it: one in the project by its name alone, so that a project that
    is moved or copied takes its own along."""
    path = local(uri)
    short = SQLITE + path.name if path and path.parent == project else uri
    return short if path and local(short) == Path(path.name) else uri


def store_of(uri: str, project: Path) -> str:
    """The store that a folder in a project keeps as `uri`. UserError for one elsewhere that isn't `store()` too: a
    stranger's folder must not choose where its figures are sent."""
    if path := local(uri):
        here = project / path.name
        if not path.is_absolute() or (not path.exists() and here.exists()):  # earlier versions wrote the whole path
            return address(here.absolute())
        if path.parent == project:
            return uri
    if uri != store():
        raise UserError(
            f"it is recorded in the MLflow store {uri}, which is neither in {project} nor the one of this shell: if "
            f"that is yours, set {STORE}={uri}"
        )
    return uri


def quiet_mlflow() -> None:
    """No telemetry, no migration chatter, no minutes of retries from MLflow, unless the user asked."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _one_at_a_time(uri: str, seconds: float = -1) -> AbstractContextManager[None]:
    """Two runs that start together must not both create the same local store, and processes that write to one must
    take turns: SQLite gives up on a lock after seconds. UserError if another one's turn lasts longer than `seconds`
    (-1: wait)."""
    path = local(uri)
    return files.locked(path.with_name(f"{path.name}.lock"), seconds=seconds) if path else nullcontext()


def _refused(error: Exception) -> bool:
    """Did a store that answers say that it will never take this?"""
    from mlflow.exceptions import MlflowException

    if isinstance(error, FileNotFoundError):  # an artifact that is gone
        return True
    return isinstance(error, MlflowException) and 400 <= int(error.get_http_status_code()) < 500  # type: ignore[no-untyped-call]


class MLflowTracker:
    """One MLflow run, through its client API (thread-safe, no global active run)."""

    def __init__(self, client: MlflowClient, uri: str, run_id: str) -> None:
        self.client = client
        self.uri = masked(uri)
        self.run_id = run_id
        self._rows = 0
        """Of the run's rows those that were delivered, or wait to be."""
        self._deliveries = Deliveries(
            f"MLflow ({self.uri})", lambda: _one_at_a_time(uri, TURN), refused=_refused, told=_told
        )

    def place(self, project: Path) -> dict[str, str]:
        """What a folder in a project keeps to find the run again: `store_of` reads the address."""
        return {"uri": kept(self.uri, project), "run_id": self.run_id}

    @classmethod
    def start(cls, name: str, job: Mapping[str, str] | None = None, uri: str | None = None) -> MLflowTracker:
        """Create a run in the store at `uri`, or in `store()`; `job` places it in a sweep (`sweep`: the parent's run
        id, `job`: its name there, `fingerprint`).

        UserError if the store can't be reached: better now than after hours.
        """
        uri = uri or store()
        tags = {"mlflow.parentRunId": job["sweep"], **job} if job else {}
        try:
            with _one_at_a_time(uri):
                _make(uri)
                client = _client(uri)
                experiment = client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    # A local store keeps artifacts beside it, wherever `rrl ui` is started later.
                    path = local(uri)
                    beside = path.with_name(ARTIFACTS).as_uri() if path else None
                    experiment_id = client.create_experiment(EXPERIMENT, artifact_location=beside)
                else:
                    experiment_id = experiment.experiment_id
                run = client.create_run(experiment_id, run_name=name, tags=tags)
        except Exception as error:  # MLflow, SQLAlchemy, alembic and requests each raise their own
            raise UserError(f"the MLflow store {uri} can't be used: {_told(error)}") from error
        return cls(client, uri, run.info.run_id)

    @classmethod
    def resume(cls, uri: str, run_id: str) -> MLflowTracker:
        """Go on with an existing run. UserError if the store can't be reached, LostRun if it hasn't this run."""
        try:
            with _one_at_a_time(uri):
                _make(uri)
                client = _client(uri)
                for tag in {"failure", "stopped_by"} & set(client.get_run(run_id).data.tags):
                    client.delete_tag(run_id, tag)
                client.update_run(run_id, status="RUNNING")
        except Exception as error:
            raise _not_found(uri, run_id, error) from error
        return cls(client, uri, run_id)

    @classmethod
    def beside(cls, uri: str, run_id: str) -> MLflowTracker:
        """Add to a run without going on with it: its status stays. UserError as of `resume`."""
        return cls(connected(uri, run_id), uri, run_id)

    @staticmethod
    def ended(uri: str, run_id: str) -> bool:
        """Does the store hold the run as FINISHED?"""
        try:
            return bool(_client(uri).get_run(run_id).info.status == "FINISHED")
        except Exception:
            return False

    @staticmethod
    def finished_jobs(uri: str, sweep: str) -> set[str]:
        """Fingerprints of the jobs of a sweep whose runs the store holds as finished, wherever they ran."""
        try:
            client = _client(uri)
            query = f"tags.sweep = '{sweep}' and attributes.status = 'FINISHED'"
            runs = client.search_runs([experiment_id(uri)], query, max_results=50_000)
        except Exception:
            return set()
        tags = [run.data.tags for run in runs]
        return {t["fingerprint"] for t in tags if "fingerprint" in t and t.get("stopped_by") == "nothing"}

    @staticmethod
    def close_killed(uri: str, sweep: str, running: Collection[str]) -> None:
        """Mark a sweep's runs that say RUNNING, but are not among those that do, as KILLED."""
        with suppress(Exception):  # a matter of looks: the next `rrl resume` sets the status anyway
            client = _client(uri)
            query = f"tags.sweep = '{sweep}' and attributes.status = 'RUNNING'"
            runs = client.search_runs([experiment_id(uri)], query)
            with _one_at_a_time(uri):
                for run in runs:
                    if run.info.run_id not in running:
                        client.set_terminated(run.info.run_id, "KILLED")

    def params(self, params: Mapping[str, str]) -> None:
        """Record those that the store lacks: it takes no second value, and a lengthened run has other
        `iterations` (its tag `iterations` tells)."""
        from mlflow.entities import Param

        def send() -> None:
            known = self.client.get_run(self.run_id).data.params
            entities = [Param(key, value) for key, value in params.items() if key not in known]
            self.client.log_batch(self.run_id, params=entities)

        self._deliveries.add("params", send)

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in tags.items()]
        self._deliveries.add("tags", lambda: self.client.log_batch(self.run_id, tags=entities))

    def dataset(self, dataset: Dataset) -> None:
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        entity = Entity(
            name=dataset.name,
            digest=dataset.digest,
            source_type="local",
            source=json.dumps({"uri": dataset.source}),
            profile=json.dumps(dict(dataset.profile)),
        )
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self._deliveries.add("dataset", lambda: self.client.log_inputs(self.run_id, inputs))

    def metrics(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        # After a resume nobody knows which rows arrived. Sending all again is safe: MLflow's key of a point
        # is (run, metric, time, step, value), and the times are the file's.
        batch = [
            Metric(NO_NAME.sub("_", key), value, row.time, row.step)
            for row in rows[self._rows :]
            for key, value in row.metrics.items()
        ]
        self._rows = len(rows)

        def send() -> None:
            for start in range(0, len(batch), 900):  # the API takes 1000 at once
                self.client.log_batch(self.run_id, metrics=batch[start : start + 900])

        self._deliveries.add("metrics", send)

    def artifact(self, path: Path, folder: str = "") -> None:
        send = partial(self.client.log_artifact, self.run_id, str(path), folder or None)
        self._deliveries.add(path.name, send)

    def text(self, text: str, name: str) -> None:
        self._deliveries.add(name, lambda: self.client.log_text(self.run_id, text, name))

    def end(self, status: str) -> None:
        self._deliveries.add("status", lambda: self.client.set_terminated(self.run_id, status), now=False)
        self.finish()

    def finish(self) -> None:
        """Try once more to deliver what waits; tell what is missing in the store."""
        if not self._deliveries.flush():
            missing = ", ".join(dict.fromkeys(what for what, _ in self._deliveries.waiting))
            warnings.warn(f"MLflow ({self.uri}) has not got this run's {missing}", stacklevel=3)


def connected(uri: str, run_id: str) -> MlflowClient:
    """A client of the store that holds this run; UserError if it can't be reached, LostRun if it hasn't this run."""
    try:
        _make(uri)
        client = _client(uri)
        client.get_run(run_id)
    except Exception as error:
        raise _not_found(uri, run_id, error) from error
    return client


def _not_found(uri: str, run_id: str, error: Exception) -> UserError:
    kind = LostRun if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" else UserError
    return kind(f"run {run_id} can't be found in the MLflow store {masked(uri)}: {_told(error)}")


def _make(uri: str) -> None:
    """Make a local store that isn't there yet, whole or not at all: MLflow takes seconds to, and none of its versions
    goes on with half a database that an interrupted start has left."""
    path = local(uri)
    if path and not path.exists():
        with files.placing(path) as whole:
            _client(address(whole)).search_experiments(max_results=1)


def _client(uri: str) -> MlflowClient:
    quiet_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(unmasked(uri))
    if path := local(uri):
        _keep_artifacts_beside(client, path)
    return client


def _keep_artifacts_beside(client: MlflowClient, store: Path) -> None:
    """MLflow knows the artifacts of a local store by their places from the root: put these right where the store was
    moved or copied with them, or they would be written to where it came from."""
    experiment, here = client.get_experiment_by_name(EXPERIMENT), store.with_name(ARTIFACTS)
    before = str(experiment.artifact_location) if experiment else ""
    there = Path(url2pathname(urlsplit(before).path))
    if there.name != ARTIFACTS or not here.is_dir() or (there.exists() and there.samefile(here)):
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(store, timeout=60)) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            change = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?"
            database.execute(change, (here.as_uri(), len(before) + 1, len(before) + 1, f"{before}/"))


def experiment_id(uri: str) -> str:
    """The id under which a store keeps our runs; UserError if it has none."""
    experiment = _client(uri).get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise UserError(f"the MLflow store {uri} holds no run of rrl yet")
    return str(experiment.experiment_id)
