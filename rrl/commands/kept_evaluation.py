"""Where `rrl eval --with` keeps what it finds: a folder that the same command goes on in, and the run's MLflow run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl.config import ginfile
from rrl.registry import Config, UserError
from rrl.run.saving import BEST_POLICY
from rrl.store import files, results
from rrl.store.pieces import Pieces
from rrl.store.tracking import MLflowTracker, Row, moved

FOLDER = "evaluations"
NUMBERS = "numbers.json"
SPACE = "after"
"""Namespace of metrics that were measured when the training was over."""


class KeptEvaluation:
    """One policy's evaluation by one gin file: `runs/<run>/evaluations/<name>`, or of a policy that belongs to no run
    here `runs/evaluations/<policy>-<checksum>/<name>`."""

    def __init__(self, policy: Path, name: str) -> None:
        content = hashlib.sha256(policy.read_bytes()).hexdigest()
        self.checksum = content[:16]
        """Of the policy."""
        self._run = policy.parent if (policy.parent / results.RUN).exists() else None
        of = self._run / FOLDER if self._run else results.ROOT / FOLDER / f"{policy.stem}-{content[: results.ID]}"
        self.folder = of / (f"{name}_best" if self._run and policy.name == BEST_POLICY else name)
        self._open = ExitStack()

    def __enter__(self) -> KeptEvaluation:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} can't be made: {error}") from error
        refusal = f"another process is working on {self.folder}; wait for it or stop it"
        self._open.enter_context(files.locked(self.folder / results.LOCK, seconds=0, refusal=refusal))
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    @property
    def pieces(self) -> Pieces:
        """Its finished episodes."""
        return Pieces(self.folder)

    def record(self, metrics: Mapping[str, float], evaluators: Sequence[Config], steps: int, seed: int) -> None:
        """Put down the numbers here and, of a run, in its MLflow run, with the files that the evaluators made."""
        how = [{"evaluator": each.component.__name__, **ginfile.flatten(each)} for each in evaluators]
        said = {"policy": self.checksum, "seed": seed, "evaluators": how, "metrics": dict(metrics)}
        files.write_json(self.folder / NUMBERS, said)
        if self._run is None:
            return
        facts: dict[str, Any] = files.read_json(self._run / results.RUN)
        tracker = MLflowTracker.beside(moved(facts["uri"], results.project(self._run)), facts["run_id"])
        named = {f"{SPACE}/{name}": value for name, value in metrics.items()}
        tracker.metrics([Row(steps, int(time.time() * 1000), named)])
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and inside.parts[0] not in (Pieces.FOLDER, results.LOCK):
                tracker.artifact(path, "/".join((FOLDER, self.folder.name, *inside.parts[:-1])))
