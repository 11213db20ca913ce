"""`rrl diff`: which settings of gin files and runs differ, and which lines decided them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_runs import make_run
from typer.testing import CliRunner

from rrl import cli
from rrl.registry import UserError
from rrl.report.diff import diff
from rrl.store import results


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def told(a: str, b: str) -> dict[str, Any]:
    said: list[str] = []
    diff(a, b, said.append, as_json=True)
    found: dict[str, Any] = json.loads(said[0])["settings"]
    return found


def values(found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: tuple(each and each["value"] for each in (s["a"], s["b"])) for name, s in found.items()}


def test_two_gin_files() -> None:
    Path("mine.gin").write_text("include 'adroit_door_state.gin'\nDAPG.gamma = 0.9\nExperiment.seed = 3\n")
    found = told("adroit_door_state", "mine.gin")
    assert values(found) == {"agent.gamma": ("0.995", "0.9"), "seed": ("0", "3")}
    assert found["agent.gamma"]["a"]["default"] and not found["agent.gamma"]["b"]["default"]
    assert found["agent.gamma"]["b"]["from"][0][0] | {"via": []} == {
        "name": "DAPG.gamma",
        "gin": "0.9",
        "file": "mine.gin",
        "line": 2,
        "text": "DAPG.gamma = 0.9",
        "via": [],
    }
    said: list[str] = []
    diff("adroit_door_state", "mine.gin", said.append)
    assert any(re.split(r"\s{2,}", line.strip())[:2] == ["agent.gamma", "0.995"] for line in said)
    assert any("0.9  (mine.gin:2)" in line for line in said) and any("(default)" in line for line in said)


def test_the_same_value_from_elsewhere_is_no_difference() -> None:
    Path("mine.gin").write_text("include 'adroit_door_state.gin'\nDAPG.gamma = 0.995\n")
    assert told("adroit_door_state", "mine.gin") == {}
    said: list[str] = []
    diff("adroit_door_state", "mine.gin", said.append)
    assert said[-1] == "no setting differs"


def test_of_components_that_differ_what_both_have() -> None:
    found = values(told("quickstart", "adroit_door_state"))
    assert found["encoder"] == ("MobileNetV2", "State")
    assert not any(name.startswith("encoder.") for name in found)
    Path("none.gin").write_text("include 'adroit_door_state.gin'\nExperiment.evaluators = ()\n")
    assert values(told("none.gin", "adroit_door_state"))["evaluators.0"] == (None, "SuccessRate")


def test_a_gin_file_and_a_run(root: Path) -> None:
    """Settings that came later and that the run doesn't hold are at their default there."""
    make_run(root, "aa11", "adroit_door_resnet34", ["DAPG.gamma = 0.9"])
    Path("mine.gin").write_text("include 'adroit_door_resnet34.gin'\nAdroit.joint_delay = 2\n")
    found = told("mine.gin", "aa")
    assert values(found)["agent.gamma"] == ("0.995", "0.9")
    assert values(found)["env.joint_delay"] == ("2", "0")
    assert found["agent.gamma"]["b"]["from"][0][0]["file"] == "runs/aa11/config.gin"
    machine = {"device", "threads", "workers", "groups"}
    assert found.keys() - machine == {"agent.gamma", "env.joint_delay"}


def test_two_runs_as_compare_names_and_tells_them(root: Path) -> None:
    for seed in range(2):
        make_run(root, f"a{seed}", seed=seed)
    make_run(root, "b0", overrides=["DAPG.step_size = 0.1"])
    assert values(told("a0,a1", "b0")) == {"agent.step_size": ("0.05", "0.1"), "seed": ("0, 1", "0")}
    compared = json.loads(CliRunner().invoke(cli.app, ["compare", "a0,a1", "b0", "--json"]).output)
    assert compared["settings"] == {"agent.step_size": ["0.05", "0.1"], "seed": ["0, 1", "0"]}


def test_a_run_that_todays_schema_refuses(root: Path) -> None:
    """It is told as it was recorded."""
    folder = make_run(root, "old0")
    config = folder / results.CONFIG
    config.write_text(config.read_text().replace("DAPG.gamma", "DAPG.discount"))
    params = json.loads((folder / results.PARAMS).read_text())
    params["params"]["agent.discount"] = params["params"].pop("agent.gamma")
    (folder / results.PARAMS).write_text(json.dumps(params))
    found = values(told("adroit_door_state", "old0"))
    assert found["agent.gamma"] == ("0.995", None) and found["agent.discount"] == (None, "0.995")


def test_what_can_not_be_compared(root: Path) -> None:
    make_run(root, "aa11")
    with pytest.raises(UserError, match=r"sweeps/fig10 describes Sweep, aa Experiment: they have no settings"):
        diff("sweeps/fig10", "aa", print)
    with pytest.raises(
        UserError, match=r"there is no run or sweep adroit_door_stat in [\s\S]*nearest is adroit_door_state"
    ):
        diff("adroit_door_stat", "aa", print)
    with pytest.raises(UserError, match=r"no such gin file"):
        diff("nowhere/zzzz.gin", "aa", print)


def test_compare_sends_gin_files_to_diff(root: Path) -> None:
    make_run(root, "aa11")
    done = CliRunner().invoke(cli.app, ["compare", "aa", "quickstart", "--json"])
    assert done.exit_code == 2 and "try: rrl diff aa quickstart --json" in done.output
