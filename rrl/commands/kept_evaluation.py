"""Where `rrl eval --with` keeps what it finds: a folder that the same command goes on in, and the run's MLflow run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl.config import ginfile
from rrl.registry import Config, UserError
from rrl.run import provenance
from rrl.run.saving import BEST_POLICY
from rrl.store import files, results
from rrl.store.pieces import Pieces
from rrl.store.tracking import MLflowTracker, Row, store_of

FOLDER = "evaluations"
NUMBERS = "numbers.json"
SPACE = "after"
"""Namespace of metrics that were measured when the training was over."""


class KeptEvaluation:
    """One evaluation of one policy: `runs/<run>/evaluations/<name>-<asked>-<answered>`, or of a policy that belongs to
    no run here `runs/evaluations/<policy>-<checksum>/...`.

    `asked` is a checksum of the evaluators' settings and the seed, `answered` one of all else that decides the numbers:
    the same command goes on in the same folder, another one gets its own. In MLflow the numbers are
    `after/<name>-<asked>/...`: those of several runs that were asked the same have one name, and no two questions do.
    """

    def __init__(
        self, policy: Path, name: str, asked: Sequence[Config], seed: int | None, facts: Mapping[str, Any]
    ) -> None:
        """`seed`: one that was asked for, None: the run's own. `facts`, JSON-able: what decides an episode beside the
        policy and what `Episode` says; among them those of the environment, `env`."""
        content = hashlib.sha256(policy.read_bytes()).hexdigest()
        self.decides = {"policy": content[:16], **facts}
        """All that decides an episode beside what `Episode` says."""
        self._run = results.read(policy.parent) if (policy.parent / results.RUN).exists() else None
        if self._run:
            said = results.facts_of(self._run.folder)
            self._recorded = store_of(said["uri"], results.project(self._run.folder)), said["run_id"]
        of = self._run.folder if self._run else results.ROOT
        of = of / FOLDER / ("" if self._run else f"{policy.stem}-{content[: results.ID]}")
        name = f"{name}_best" if self._run and policy.name == BEST_POLICY else name
        how = [{"evaluator": each.component.__name__, **ginfile.flatten(each)} for each in asked]
        self._asked = {"evaluators": how, "seed": seed}
        self._answered = {**self.decides, **provenance.codes(each.component for each in asked)}
        question = f"{name}-{_checksum(self._asked)}"
        self.folder = of / f"{question}-{_checksum(self._answered)}"
        self.space = f"{SPACE}/{question}"
        """What the names of its metrics begin with."""
        # Of all questions of this name: they may have episodes in common.
        self._pieces = of / name
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
        """Finished episodes, its own and others of this policy and name."""
        return Pieces(self._pieces)

    def record(self, metrics: Mapping[str, float], seed: int, updates: int) -> str:
        """Put down the numbers of a policy after so many updates here and, of a run, in its MLflow run, with the files
        that the evaluators made. Says where they are."""
        said = {**self._answered, **self._asked, "seed": seed, "metrics": dict(metrics)}
        files.write_json(self.folder / NUMBERS, said)
        told = f"files: {self.folder}"
        if self._run is None:
            return told
        tracker = MLflowTracker.beside(*self._recorded)
        named = {f"{self.space}/{name}": value for name, value in metrics.items()}
        tracker.metrics([Row(self._run.steps_by(updates), int(time.time() * 1000), named)])
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and inside.parts[0] != results.LOCK:
                tracker.artifact(path, "/".join((FOLDER, self.folder.name, *inside.parts[:-1])))
        tracker.finish()
        return f"MLflow: {self.space}/... of run {self._run.run_id[: results.ID]}; {told}"


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[: results.ID]
