"""Run folders as reports, sweeps and verdicts read them."""

from __future__ import annotations

import fcntl
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.report_pages import page_of, report_of
from helpers.report_runs import make_run, make_scored

from rrl.encoders import PixelCNN
from rrl.encoders.fixed import save_encoder
from rrl.registry import UserError
from rrl.report.compare import compare
from rrl.run import process
from rrl.store import results


def test_a_run_by_folder_id_or_beginning(tmp_path: Path) -> None:
    for run_id in ("ab12", "ab34"):
        make_run(tmp_path, run_id)
    (by_id,) = results.find(["ab12"], tmp_path)
    (by_beginning,) = results.find(["ab3"], tmp_path)
    (by_folder,) = results.find([str(tmp_path / "ab12")], tmp_path)
    assert [r.run_id for r in (by_id, by_beginning, by_folder)] == ["ab12", "ab34", "ab12"]
    with pytest.raises(UserError, match="may be any of ab12, ab34"):
        results.find(["ab"], tmp_path)
    with pytest.raises(UserError, match=r"no run or sweep zz in .*\. The newest here: ab12, ab34"):
        results.find(["zz"], tmp_path)
    make_run(tmp_path, "ab")
    (whole,) = results.find(["ab"], tmp_path)
    assert whole.run_id == "ab"


def test_all_commands_mean_the_same_by_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same words where it means nothing: near ids, runs of this name, what is in another folder."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", "e657aa", name="door-seed0")
    (tmp_path / "runs" / "5eed").mkdir()
    (tmp_path / "runs" / "5eed" / "sweep.json").write_text("{}")
    for name, words in (
        ("e658", r"Did you mean e657aa\?"),
        ("door-seed0", "Runs are meant by their ids; of this name there are e657aa"),
        ("*", "The newest here: .*e657aa"),
        ("", "The newest here: .*e657aa"),
    ):
        for ask in (lambda n: process.resume(n), lambda n: results.find([n]), lambda n: compare(n, "e657", print)):
            with pytest.raises(UserError, match=words):
                ask(name)
    with pytest.raises(UserError, match="5ee is a sweep, not a run; `rrl runs 5ee` lists its runs"):
        process.resume("5ee")


def test_a_sweep_means_its_runs(tmp_path: Path) -> None:
    for run_id in ("a1", "a2", "b1"):
        folder = make_run(tmp_path, run_id)
        if run_id != "b1":
            facts = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(facts | {"sweep": "5eed", "job": run_id}))
    (tmp_path / "5eed").mkdir()
    (tmp_path / "5eed" / "sweep.json").write_text("{}")
    assert [run.job for run in results.find(["5ee"], tmp_path)] == ["a1", "a2"]
    assert len(results.find([], tmp_path)) == 3


def test_a_run_without_a_process_that_says_running_was_killed(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a1", status="RUNNING")
    assert results.read_status(folder) == ("stopped", "killed, or the machine went down")
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert results.read(folder).status == "running"
    assert results.read(folder).status == "stopped"
    results.write_status(folder, "FAILED", "ValueError: no")
    assert results.read_status(folder) == ("failed", "ValueError: no")


def test_nan_that_earlier_versions_wrote_was_not_measured(tmp_path: Path) -> None:
    path = make_run(tmp_path, "a1") / "metrics.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[-1])
    wrong = {"train/success": math.nan, "train/return": math.inf}
    path.write_text("\n".join([*lines[:-1], json.dumps(row | {"metrics": row["metrics"] | wrong})]) + "\n")
    run = results.read(path.parent)
    assert len(run.rows) == len(lines)
    assert run.rows[-1].metrics.keys() == row["metrics"].keys() - wrong.keys()
    assert not {"nan", "inf"} & set(page_of(tmp_path).lower().split())


def test_a_row_that_is_being_written_does_not_count_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a1")
    path = folder / "metrics.jsonl"
    whole = results.read(folder).rows
    with path.open("a") as file:
        file.write('{"step": 7000, "time": 1, "metrics": {"train/success": 50.0}')
    assert results.read(folder).rows == whole


def test_a_damaged_run_is_told_but_hides_no_other(tmp_path: Path) -> None:
    make_run(tmp_path, "a1")
    folder = make_run(tmp_path, "a2")
    (folder / "config.gin").write_text("Experiment.nonsense = 1\n")
    (folder / results.PARAMS).write_text("{")
    with pytest.warns(UserWarning, match="a2"):
        assert [run.run_id for run in results.find([], tmp_path)] == ["a1"]
    with pytest.raises(UserError):
        results.find(["a2"], tmp_path)


def test_series_and_totals(tmp_path: Path) -> None:
    run = results.read(make_run(tmp_path, "a1", updates=3, steps=1000))
    steps, values = run.series("train/success")
    assert steps == [1000, 2000, 3000]
    assert run.last("train/success") == values[-1]
    assert run.last("nothing") is None
    assert run.steps == 3000


def test_a_lengthened_run_is_not_judged_by_its_former_end(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a1", updates=3)
    assert results.read(folder).last("final/success") is not None
    with (folder / "metrics.jsonl").open("a") as file:
        row = {"step": 4000, "time": 1, "metrics": {"train/success": 50.0, "iteration": 4}}
        file.write(json.dumps(row) + "\n")
    run = results.read(folder)
    assert run.last("final/success") is None
    assert run.last("train/success") == 50.0
    assert run.last("eval/success") is not None


def test_what_may_not_be_lengthened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    clones = make_run(root, "a1", "results/bc_door_state")
    member = make_run(root, "b1", updates=3)
    facts = json.loads((member / "run.json").read_text())
    (member / "run.json").write_text(json.dumps(facts | {"sweep": "c1"}))
    before = {folder: (folder / "config.gin").read_text() for folder in (clones, member)}
    for run, words in (("a1", "BC learns from demonstrations alone"), ("b1", "belongs to a sweep")):
        with pytest.raises(UserError, match=words):
            process.resume(run, iterations=10_000)
    lonely = make_run(root, "d1", updates=3)  # its server isn't there: nothing is changed
    before[lonely] = (lonely / "config.gin").read_text()
    facts = json.loads((lonely / "run.json").read_text())
    (lonely / "run.json").write_text(json.dumps(facts | {"uri": "http://127.0.0.1:9"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="can't be found in the MLflow store"):
        process.resume("d1", iterations=10_000)
    assert {folder: (folder / "config.gin").read_text() for folder in before} == before


# --- runs of other versions ------------------------------------------------------------------------------


def aged(folder: Path, **names: str) -> Path:
    """Make a run one of a version that left no `params.json`, with components of other names."""
    (folder / results.PARAMS).unlink()
    text = (folder / "config.gin").read_text()
    for name, other in names.items():
        text = text.replace(name, other)
    (folder / "config.gin").write_text(text)
    return folder


def test_a_setting_that_is_gone_hides_no_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a1", "adroit_door_resnet34", ["DAPG.lam_0 = 0.02"])
    before = results.read(folder)
    with (aged(folder) / "config.gin").open("a") as file:
        file.write("Experiment.gone = (1, 2)\nResNet.gone = 'x'\nAdroit.gone = None\n")
    run = results.read(folder)
    gone = {"gone": "(1, 2)", "encoder.gone": "x", "env.gone": "None"}
    assert run.params == {**before.params, **gone}
    for name in ("labels", "score", "flags", "pictures", "visual", "rows"):
        assert getattr(run, name) == getattr(before, name), name
    assert run.labels == {"env": "door", "encoder": "ResNet34", "agent": "DAPG"}
    make_run(tmp_path, "a2", "adroit_door_resnet34", ["DAPG.lam_0 = 0.02"], seed=1)
    old, new = sorted(report_of(tmp_path).groups, key=lambda group: group.params["seed"])
    assert (old.task, old.encoder, old.agent) == (new.task, new.encoder, new.agent)
    assert {name for name, _ in old.extras} == {"gone", "encoder.gone", "env.gone"}  # and no other setting
    assert "ResNet34" in page_of(tmp_path)


def test_an_encoders_file_that_is_gone_hides_no_run(tmp_path: Path) -> None:
    encoder = PixelCNN(PixelCNN.Config(), cameras=1)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder, encoder.head(torch.Generator()), {})
    folder = make_scored(tmp_path, "a0", "dmc_cartpole_swingup_fixed_rad", {0: 1.0}, [f"FixedEncoder.file = '{path}'"])
    before = results.read(folder)
    assert before.labels["encoder"] == "FixedEncoder (PixelCNN)"
    path.unlink()
    assert results.read(folder) == before
    (folder / "tags.json").write_text(json.dumps({"encoder": "FixedEncoder (PixelCNN)", "renderer": "llvmpipe"}))
    run = results.read(aged(folder))
    assert run.params == {**before.params, "encoder.file": "../encoder.safetensors"}  # as its config.gin says it
    for name in ("labels", "score", "flags", "pictures", "visual", "rows"):
        assert getattr(run, name) == getattr(before, name), name


def test_a_component_that_is_not_installed_hides_no_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a0", "adroit_door_mobilenetv2")
    before = results.read(folder)
    run = results.read(aged(folder, Adroit="Robot", MobileNetV2="Eye", DAPG="Brain"))
    assert run.labels == {"env": "adroit_door", "encoder": "MobileNetV2", "agent": "Brain"}  # its tags name two of them
    assert run.params == {**before.params, "env": "Robot", "encoder": "Eye", "agent": "Brain"}
    assert (run.score.name, run.score.counted, run.pictures) == ("success", True, True)  # as it logged
    other = make_scored(tmp_path, "b0", "dmc_walker_walk_state_sac", {0: 1.0, 50_000: 2.0})
    run = results.read(aged(other, DMControl="Robot", State="Eye"))
    assert (run.score.name, run.score.counted, run.pictures) == ("return", False, False)
    assert [group.task for group in report_of(tmp_path).groups] == ["adroit_door", "dmc_walker_walk"]
    assert "Brain" in page_of(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"params": {}}', "types", "\x00"])
def test_a_damaged_description_is_made_anew_from_the_configuration(tmp_path: Path, damage: str) -> None:
    folder = make_run(tmp_path, "a0")
    before = results.read(folder)
    path = folder / results.PARAMS
    wrong = json.dumps({**json.loads(path.read_text()), "labels": ["door"], "pictures": "perhaps"})
    path.write_text(wrong if damage == "types" else damage)
    assert results.read(folder) == before


@pytest.mark.parametrize("text", ["", "nonsense", "Experiment.env = @Adroit()\n", "Experiment.env = 1\n"])
def test_a_damaged_configuration_names_the_run(tmp_path: Path, text: str) -> None:
    (aged(make_run(tmp_path, "a0")) / "config.gin").write_text(text)
    with pytest.warns(UserWarning, match="a0 holds no run that can be read"):
        assert results.find([], tmp_path) == []


def test_parts_in_each_others_places_are_no_traceback(tmp_path: Path) -> None:
    folder = aged(make_run(tmp_path, "a0"))
    text = (folder / "config.gin").read_text().replace("env = @Adroit()", "env = @State()")
    (folder / "config.gin").write_text(text.replace("encoder = @State()", "encoder = @Adroit()"))
    run = results.read(folder)
    assert (run.params["env"], run.params["encoder"]) == ("State", "Adroit")
    assert run.score.name == "success"


def test_results_are_read_without_torch_and_without_components(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    code = f"""
import sys
from pathlib import Path
from rrl.store import results
(run,) = results.find([], Path({str(tmp_path)!r}))
assert run.labels["env"] == "door"
assert not {{"torch", "mujoco", "rrl.envs", "rrl.encoders", "rrl.agents"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
