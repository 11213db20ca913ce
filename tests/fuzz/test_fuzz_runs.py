"""Run and sweep folders that were damaged or forged, as `rrl runs`, `rrl compare`, `rrl diff`, `rrl report` and sweeps
read them."""

import json

import pytest
import torch
from helpers import mutants, report_runs

from rrl.report import compare, csv_files, diff, figures, listing, page, write
from rrl.store import checkpoint, results
from rrl.sweeps import state

RUN, OTHER, SWEEP = "aaaa1111", "bbbb2222", "cccc3333"
FILES = ("run.json", "run.json", "metrics.jsonl", "metrics.jsonl", "params.json", "tags.json", "status.json", "sweep")
SECTIONS = ("train", "eval", "tasks", "aggregate", "compute")
WHOLE = 30
"""One in so many runs gets all of a report but its figures."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs, the first of a sweep."""
    root = tmp_path_factory.mktemp("project") / "runs"
    for run_id, seed in ((RUN, 0), (OTHER, 1)):
        folder = report_runs.make_run(root, run_id, seed=seed, updates=3)
    folder = root / RUN
    about = {"name": "a", "started": "2026", "uri": "sqlite:///mlflow.db", "run_id": SWEEP}
    facts = json.loads((folder / "run.json").read_text())
    facts |= {"sweep": SWEEP, "job": "a-0", "fingerprint": "f", "argv": ["rrl", "sweep"]}
    (folder / "run.json").write_text(json.dumps(facts))
    checkpoint.save_file(folder / "checkpoint.safetensors", {"a": torch.zeros(2)}, {"finished": True})
    (root / SWEEP).mkdir()
    job = {"name": "a-0", "source": "a.gin", "point": {"Experiment.seed": "0"}, "fingerprint": "f"}
    (root / SWEEP / "sweep.json").write_text(json.dumps({**about, "jobs": [job], "trials": [{"0": 1.5}]}))
    return root


@pytest.fixture(scope="module")
def whole(root):
    """The files that mutants begin from."""
    paths = [*(root / RUN).glob("*.*"), root / SWEEP / "sweep.json"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def mutant(rng, root, whole):
    """Damages or forges one file; returns what was done."""
    for name, data in whole.items():
        (root / name).write_bytes(data)
    name = rng.choice((*FILES, "config.gin", "checkpoint.safetensors"))
    path = root / SWEEP / "sweep.json" if name == "sweep" else root / RUN / name
    data = path.read_bytes()
    if name == "checkpoint.safetensors":  # asked where nothing else says how the run ended
        (root / RUN / "status.json").unlink()
    if name == "config.gin":
        (root / RUN / "params.json").unlink()
    if name in ("config.gin", "checkpoint.safetensors") or rng.random() < 0.15:
        what, data = mutants.damaged(rng, data)
        path.write_bytes(data)
    elif name == "metrics.jsonl":
        lines = data.decode().splitlines()
        row = rng.randrange(len(lines))
        what, lines[row] = mutants.json_text(rng, json.loads(lines[row]))
        path.write_text("\n".join([*lines, ""]), errors="replace")
    else:
        what, text = mutants.json_text(rng, json.loads(data))
        path.write_text(text, errors="replace")
    return f"{name}: {what}"


def told(root, out, *, report):
    """What commands say of the run."""
    results.read(root / RUN)
    listing.show([RUN], str.encode, as_json=True, root=root)
    compare.compare(RUN, OTHER, str.encode, as_json=True, root=root)
    state.finished("a")
    with state.SweepFolder(root / SWEEP, None) as sweep:
        sweep.record([])
        sweep.runs()
    if not report:
        return
    listing.show([], str.encode, root=root)
    compare.compare(RUN, OTHER, str.encode, width=80, root=root)
    diff.diff(RUN, OTHER, str.encode, root=root)
    found = write.read([], root)
    csv_files.write_all(found, out)
    none = {section: [] for section in SECTIONS}
    page.render(found, none, figures.looks(found), title="", files="", published=[], verdict=None).encode()


def test_the_undamaged_run_is_read(root, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(root.parent)
    told(root, tmp_path, report=True)
    assert state.finished("a") == {"f"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants(root, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(root.parent)
    count = 0

    def read():
        nonlocal count
        count += 1
        told(root, tmp_path, report=count % WHOLE == 0)

    assert not mutants.faults(300, lambda rng: mutant(rng, root, whole), read)
