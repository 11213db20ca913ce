"""A probe on disk: `runs/<its run id>/` with its settings, finished pieces and leaderboard, and its rows in MLflow."""

from __future__ import annotations

import glob
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic

from rrl.config import ginfile
from rrl.probes.leaderboard import Row, numbers
from rrl.probes.settings import Probe
from rrl.registry import UserError
from rrl.run import process
from rrl.store import files, results, schema
from rrl.store.tracking import MLflowTracker, store_of
from rrl.store.tracking import Row as Point

MAY_CHANGE = ("encoders", "controls", "clones", "episodes", "changes", "shown", "threads", "workers")
"""Settings with which a probe of the same name goes on: what is measured already stays what it is."""


class _Facts(pydantic.BaseModel):
    """What is asked of a probe's file; more stands there for people."""

    model_config = pydantic.ConfigDict(strict=True)

    name: str
    started: str
    uri: str
    run_id: str
    children: dict[str, str]


def _facts(folder: Path) -> dict[str, Any]:
    """What a probe's file says; UserError if it is damaged."""
    facts = files.read_json(folder / results.PROBE)
    schema.expect(_Facts, facts, folder / results.PROBE, "probe")
    return facts


class ProbeFolder:
    """An open probe; holds its lock until it is closed, at the latest when the process ends."""

    def __init__(self, folder: Path, tracker: MLflowTracker) -> None:
        self.folder, self.tracker = folder, tracker
        self._lock = ExitStack()
        refusal = f"another process is working on the probe {folder}; wait for it or stop it"
        self._lock.enter_context(files.locked(folder / results.LOCK, seconds=0, refusal=refusal))
        self.facts = _facts(folder)

    def __enter__(self) -> ProbeFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self._lock.close()

    @staticmethod
    def named(name: str) -> tuple[Path, dict[str, Any]] | None:
        """(folder, facts) of the newest probe of this name in `runs/`; None: there is none."""
        folders = [path.parent for path in results.ROOT.glob(f"*/{results.PROBE}")]
        alike = [folder for folder in folders if files.read_json(folder / results.PROBE).get("name") == name]
        return max(((folder, _facts(folder)) for folder in alike), key=lambda found: found[1]["started"], default=None)

    @staticmethod
    def of_id(text: str) -> tuple[Path, dict[str, Any]] | None:
        """(folder, facts) of the one probe in `runs/` whose id, or the beginning of it, this is."""
        found = [path.parent for path in results.ROOT.glob(f"{glob.escape(text)}*/{results.PROBE}")] if text else []
        if len(found) != 1 or Path(text).exists():
            return None
        return found[0], _facts(found[0])

    @classmethod
    def open(cls, name: str, new: bool = False, there: tuple[Path, dict[str, Any]] | None = None) -> ProbeFolder:
        """The probe that is `there`, or else the newest of this name; if there is none, or `new`, a fresh one with its
        MLflow run."""
        process.make_root()
        with files.locked(results.ROOT / ".probes.lock"):  # two first calls must not make two probes
            known = None if new else there or cls.named(name)
            if known:
                folder, facts = known
                uri = store_of(facts["uri"], results.project(folder))
                return cls(folder, MLflowTracker.resume(uri, facts["run_id"]))
            tracker = MLflowTracker.start(name)
            tracker.tags({"kind": "probe"})
            folder = results.ROOT / tracker.run_id
            folder.mkdir()
            facts = {
                "format": 1,
                **tracker.place(results.project(folder)),
                "name": name,
                "children": {},
            }
            started = datetime.now(UTC).isoformat(timespec="milliseconds")
            files.write_json(folder / results.PROBE, facts | {"started": started, "argv": sys.argv})
            return cls(folder, tracker)

    def settings(self, config: Probe.Config) -> None:
        """Write down what is compared now. UserError where that can't stand beside what was compared before."""
        if (self.folder / results.CONFIG).exists():
            before = ginfile.load(self.folder / results.CONFIG, root="Probe")
            other = [name for name in type(config).model_fields if getattr(before, name) != getattr(config, name)]
            if other := [name for name in other if name not in MAY_CHANGE]:
                raise UserError(
                    f"{self.folder} is a probe called {self.facts['name']!r} too, with another Probe.{other[0]}: its "
                    "leaderboard would be lost; give this one a --name of its own, or --new for a new folder"
                )
        files.write_text(self.folder / results.CONFIG, ginfile.dumps(config, self.folder, results.project(self.folder)))
        self.tracker.artifact(self.folder / results.CONFIG)

    def child(self, row: Row, common: Mapping[str, str]) -> None:
        """The entrant's own row in MLflow, with what is known of it by now; `common`: tags of all."""
        entrant, children = row.entrant, self.facts["children"]
        if entrant.id in children:
            tracker = MLflowTracker.resume(self.tracker.uri, children[entrant.id])
        else:
            place = {"sweep": self.tracker.run_id, "job": entrant.label}
            tracker = MLflowTracker.start(f"{self.facts['name']}: {entrant.label}", place)
            children[entrant.id] = tracker.run_id
            files.write_json(self.folder / results.PROBE, self.facts)
        facts = entrant.facts | {"trained": str(entrant.experiment.encoder.trained).lower()}
        tags = {f"encoder.{name}": value for name, value in facts.items()}
        tracker.tags({**common, **tags, "encoder": entrant.label, "kind": "probe's row", "role": entrant.role})
        tracker.params({f"encoder.{name}": value for name, value in ginfile.flatten(entrant.encoder).items()})
        measured = {name: float(value) for name, value in numbers(row).items()}
        tracker.metrics([Point(row.clones, row.time, measured)])
        tracker.end("FAILED" if entrant.reason else "FINISHED")
