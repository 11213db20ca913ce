"""`rrl pretrain` on disk: begins, or goes on with what the same command began."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import pydantic

from rrl.config import ginfile
from rrl.encoders.task import save_encoder
from rrl.machine.console import Display, optional_output
from rrl.machine.paths import new_file
from rrl.machine.signals import Stopping
from rrl.pretrain.collect import BudgetOver, collect
from rrl.pretrain.pretraining import Pretraining, resolve
from rrl.pretrain.sheet import sheet
from rrl.pretrain.train import Metrics, Pictures, Teacher, Training, in_words
from rrl.registry import UserError
from rrl.run import facts, process, provenance
from rrl.run.loop import Ended
from rrl.store import checkpoint, files, schema
from rrl.store.results import CONFIG, PRETRAINING, ROOT, project
from rrl.store.tracking import MLflowTracker, store_of

ENCODER, SHEET = "encoder.safetensors", "reconstructions.png"
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
    here = _is_of(out, pretraining.fingerprint) or _copied(pretraining.fingerprint, _free(out))
    if here:
        print(f"this encoder is trained: {out}\n{_use(pretraining, out)}")
        folder = _begun(pretraining.fingerprint)
        if folder is not None and (folder / SHEET).exists():
            print(f"reconstructions: {folder / SHEET}")
        return 0
    pretraining.store(ROOT / DATA).need_room(asked.pictures)
    process.make_root()
    with Stopping() as stopping, _opened(pretraining, " ".join(sources), asked) as (folder, tracker, config):
        pretraining.config = config

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
        pictures = Pictures(config, pretraining.encoder, collect(pretraining, store, display, deadline))
        teacher = Teacher(config, pretraining.encoder, pictures)
        training = Training(teacher, folder, tracker, display)
        last = training.run(deadline)
    except BudgetOver:
        return "budget"
    display.phase("drawing and saving", 0)
    mixture = " / ".join(f"{share:g}" for share in config.mixture)
    learnt = f"{title}: {config.pictures:,} pictures ({mixture}), {config.epochs} epochs\n{in_words(last)}"
    sheet(teacher.learner, pictures, learnt, folder / SHEET)
    encoder = pretraining.encoder
    encoder.network.eval()
    data = pretraining.data | {"fingerprint": store.fingerprint}
    made = _made(pretraining, last) | {"kl_weight": config.kl_weight, "run": tracker.run_id}
    made |= {"seconds": training.seconds, "multiply_adds": config.epochs * teacher.steps * teacher.multiply_adds()}
    save_encoder(folder / ENCODER, encoder, data, made)
    for name in ("metrics.jsonl", SHEET, ENCODER):
        tracker.artifact(folder / name)
    if not _is_of(out, pretraining.fingerprint):
        _free(out)  # something may have come there since
    _copy(folder, out)
    display.line(f"reconstructions: {folder / SHEET}")
    display.line(f"encoder: {out}")
    display.line(_use(pretraining, out))
    return "finished"


def _made(pretraining: Pretraining, last: Metrics) -> dict[str, Any]:
    """What the encoder's file says of its training."""
    config = pretraining.config
    return {
        **{name: getattr(config, name) for name in ("epochs", "batch", "lr", "decay", "precision")},
        "losses": {name: value for name, value in last.items() if name.startswith(("train/", "held_out/"))},
        "fingerprint": pretraining.fingerprint,
        "versions": {"rrl": version("rrl")} | provenance.versions(pretraining.encoder, pretraining.env, Pretraining),
        "git_commit": facts.git_commit(),
    }


def _free(out: Path) -> Path:
    """The path, at which the file can be made. UserError if something else is there already."""
    if out.suffix != ".safetensors":
        raise UserError(f"an encoder's file is a .safetensors; got {out}")
    try:
        return new_file(out)
    except UserError as error:
        if not out.is_file():
            raise
        raise UserError(
            f"{error}: it is not of this training; `--out FILE`, or a `Pretraining.name` of its own, keeps both"
        ) from error


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


def _copied(fingerprint: str, out: Path) -> bool:
    """Copy the file of this training out of the folder of a finished one, if there is one."""
    folder = _begun(fingerprint)
    if folder is None or not _is_of(folder / ENCODER, fingerprint):
        return False
    _copy(folder, out)
    return True


def _copy(folder: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(out) as file:
        file.write((folder / ENCODER).read_bytes())


@contextmanager
def _opened(
    pretraining: Pretraining, source: str, asked: Pretraining.Config
) -> Iterator[tuple[Path, MLflowTracker, Pretraining.Config]]:
    """(folder, tracker, configuration) of the training that the same settings began, or of a new one."""
    with ExitStack() as stack:
        with files.locked(ROOT / ".pretrain.lock"):  # two first calls must not make two of them
            folder, config = _begun(pretraining.fingerprint), pretraining.config
            if folder is None:
                tracker = MLflowTracker.start(asked.title)
                folder = ROOT / tracker.run_id
                folder.mkdir()
                stack.enter_context(process.locked(folder))
                _record(folder, tracker, pretraining, source)
            else:
                stack.enter_context(process.locked(folder))
                before = ginfile.load(folder / CONFIG, root="Pretraining")
                same = {name: getattr(before, name) for name in MACHINE if getattr(asked, name) in (None, "auto")}
                config = resolve(config.model_copy(update=same))
                said = files.read_json(folder / PRETRAINING)
                schema.expect(_Facts, said, folder / PRETRAINING, "encoder's training")
                tracker = MLflowTracker.resume(store_of(said["uri"], project(folder)), said["run_id"])
        try:
            yield folder, tracker, config
        except BaseException:
            tracker.end("FAILED")
            raise


class _Facts(pydantic.BaseModel):
    """What is asked of a training's file; more stands there for people."""

    model_config = pydantic.ConfigDict(strict=True)

    uri: str
    run_id: str


def _record(folder: Path, tracker: MLflowTracker, pretraining: Pretraining, source: str) -> None:
    """What the folder of a new training says of it."""
    config = pretraining.config
    files.write_text(folder / CONFIG, ginfile.dumps(config, folder, project(folder)))
    said = {
        **tracker.place(project(folder)),
        "name": config.title,
        "source": source,
        "argv": sys.argv,
    }
    said |= {"fingerprint": pretraining.fingerprint, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    files.write_json(folder / PRETRAINING, said)


def _begun(fingerprint: str) -> Path | None:
    """The folder of a training with these settings."""
    paths = sorted(ROOT.glob(f"*/{PRETRAINING}"))
    return next((p.parent for p in paths if files.read_json(p).get("fingerprint") == fingerprint), None)
