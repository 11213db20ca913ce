"""`rrl pretrain` on disk: begins, or goes on with what the same command began."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rrl.config import ginfile
from rrl.encoders.task import save_encoder
from rrl.machine.console import Display, optional_output
from rrl.machine.paths import new_file
from rrl.machine.signals import Stopping
from rrl.pretrain.collect import BudgetOver, collect
from rrl.pretrain.pretraining import Pretraining, resolve
from rrl.pretrain.sheet import sheet
from rrl.pretrain.train import Metrics, Pictures, Training
from rrl.registry import UserError
from rrl.run import facts, process, provenance
from rrl.run.loop import Ended
from rrl.store import checkpoint, files
from rrl.store.results import CONFIG, ROOT, project
from rrl.store.tracking import MLflowTracker, moved

RECORD, ENCODER, SHEET = "pretraining.json", "encoder.safetensors", "reconstructions.png"
DATA = "pictures"
"""Folder of data sets in `runs/`."""
MACHINE = ("device", "threads", "workers")
"""Settings that say where it is computed; the same command may choose others on its way."""


@optional_output()
def pretrain(
    sources: Sequence[str], overrides: Sequence[str], out: Path | None = None, budget: float | None = None
) -> int:
    """Train what gin files describe and write the encoder's file, by default `runs/<name>.safetensors`; returns the
    process's exit code."""
    asked = ginfile.load(sources, overrides, "Pretraining")
    assert isinstance(asked, Pretraining.Config)
    out = out or ROOT / f"{asked.title}.safetensors"
    pretraining = Pretraining(resolve(asked))
    if _is_of(out, pretraining.fingerprint):
        print(f"this encoder is trained: {out}\n{_use(pretraining, out)}")
        return 0
    new_file(out)
    pretraining.store(ROOT / DATA).need_room(asked.pictures)
    process.make_root()
    with Stopping() as stopping, _opened(pretraining, " ".join(sources), asked) as (folder, tracker, config):
        pretraining = Pretraining(config)

        def work(display: Display) -> Ended:
            return _work(pretraining, folder, tracker, display, out, budget)

        again = f"rrl {shlex.join(sys.argv[1:])}"
        return process.supervised(work, folder, tracker, stopping, lambda: f"go on with the same command: {again}")


def _work(
    pretraining: Pretraining, folder: Path, tracker: MLflowTracker, display: Display, out: Path, budget: float | None
) -> Ended:
    deadline = None if budget is None else monotonic() + budget
    config = pretraining.config
    title = f"{config.encoder.component.__name__} of {pretraining.env.name}"
    display.line(f"pretraining {tracker.run_id}: {title}, {config.epochs} epochs of {config.pictures:,} pictures")
    tracker.params(ginfile.flatten(config, project(folder)))
    tracker.artifact(folder / CONFIG)
    store = pretraining.store(ROOT / DATA)
    tracker.tags({"kind": "pretraining", "pictures": store.fingerprint, "git_commit": facts.git_commit()})
    try:
        pictures = Pictures(pretraining, collect(pretraining, store, display, deadline))
        training = Training(pretraining, pictures, folder, tracker, display, deadline)
        last = training.run()
    except BudgetOver:
        return "budget"
    display.phase("drawing and saving", 0)
    losses = ", ".join(
        f"{name} {last[f'held_out/{name}']:.4g}" for name in ("reconstruction", "kl") if last.get(f"held_out/{name}")
    )
    mixture = " / ".join(f"{share:g}" for share in config.mixture)
    sheet(
        training.learner,
        pictures,
        f"{title}: {config.pictures:,} pictures ({mixture}), {config.epochs} epochs; held out: {losses}",
        folder / SHEET,
    )
    pretraining.encoder.network.eval().to("cpu")
    save_encoder(
        folder / ENCODER,
        pretraining.encoder,
        pretraining.data | {"fingerprint": store.fingerprint},
        _made(pretraining, last, tracker.run_id),
    )
    for name in ("metrics.jsonl", SHEET, ENCODER):
        tracker.artifact(folder / name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(out) as file:
        file.write((folder / ENCODER).read_bytes())
    display.line(f"reconstructions: {folder / SHEET}")
    display.line(f"encoder: {out}")
    display.line(_use(pretraining, out))
    return "finished"


def _made(pretraining: Pretraining, last: Metrics, run_id: str) -> dict[str, Any]:
    """What the encoder's file says of its training."""
    config = pretraining.config
    losses = {name: value for name, value in last.items() if name.startswith(("train/", "held_out/"))}
    settings = {name: getattr(config, name) for name in ("epochs", "batch", "lr", "decay", "kl_weight", "precision")}
    versions = provenance.versions(pretraining.encoder, pretraining.env, Pretraining)
    return {
        **settings,
        "losses": losses,
        "run": run_id,
        "fingerprint": pretraining.fingerprint,
        "versions": versions,
        "git_commit": facts.git_commit(),
    }


def _use(pretraining: Pretraining, out: Path) -> str:
    """How to go on with the file."""
    name = pretraining.config.encoder.component.__name__
    return f'use it: rrl run ... --set "Experiment.encoder = @{name}()" --set "{name}.weights = {str(out)!r}"'


def _is_of(out: Path, fingerprint: str) -> bool:
    """Is it the file of this very training?"""
    try:
        return bool(checkpoint.load_values(out)["training"]["fingerprint"] == fingerprint)
    except (UserError, KeyError, TypeError):
        return False


@contextmanager
def _opened(
    pretraining: Pretraining, source: str, asked: Pretraining.Config
) -> Iterator[tuple[Path, MLflowTracker, Pretraining.Config]]:
    """(folder, tracker, configuration) of the training that the same settings began, or of a new one."""
    with files.locked(ROOT / ".pretrain.lock"):  # two first calls must not make two of them
        folder = _begun(pretraining.fingerprint)
        config = pretraining.config
        if folder is not None:
            before = ginfile.load(folder / CONFIG, root="Pretraining")
            same = {name: getattr(before, name) for name in MACHINE if getattr(asked, name) in (None, "auto")}
            config = resolve(config.model_copy(update=same))
            record = files.read_json(folder / RECORD)
            tracker = MLflowTracker.resume(moved(record["uri"], project(folder)), record["run_id"])
        else:
            tracker = MLflowTracker.start(asked.title)
            folder = ROOT / tracker.run_id
            folder.mkdir()
            files.write_text(folder / CONFIG, ginfile.dumps(config, folder, project(folder)))
            record = {"uri": tracker.uri, "run_id": tracker.run_id, "name": asked.title, "source": source}
            record |= {"fingerprint": pretraining.fingerprint, "argv": sys.argv}
            files.write_json(folder / RECORD, record | {"started": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        with process.locked(folder):
            yield folder, tracker, config
    except BaseException:
        tracker.end("FAILED")
        raise


def _begun(fingerprint: str) -> Path | None:
    """The folder of a training with these settings."""
    paths = sorted(ROOT.glob(f"*/{RECORD}"))
    return next((p.parent for p in paths if files.read_json(p).get("fingerprint") == fingerprint), None)
