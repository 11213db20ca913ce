"""`rrl compare`: what differs, by how much, and when the two can't be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.report_runs import make_run, make_scored

from rrl.registry import UserError
from rrl.report.compare import compare
from rrl.statistics import difference, newcombe
from rrl.store import results


def told(root: Path, a: str, b: str) -> dict[str, Any]:
    said: list[str] = []
    compare(a, b, said.append, as_json=True, root=root)
    found: dict[str, Any] = json.loads(said[0], parse_constant=lambda name: pytest.fail(name))
    return found


def lines(root: Path, a: str, b: str, width: int | None = None) -> list[str]:
    said: list[str] = []
    compare(a, b, said.append, width=width, root=root)
    return "\n".join(said).split("\n")


def final(root: Path, run: str) -> float:
    value = results.read(root / run).last("final/success")
    assert value is not None
    return value


def seeds(root: Path, letter: str, **options: Any) -> str:
    for seed in range(3):
        make_run(root, f"{letter}{seed}", seed=seed, **options)
    return f"{letter}0,{letter}1,{letter}2"


def test_settings_and_facts_that_differ(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", tags={"encoder.weights": "sha:1"})
    make_run(tmp_path, "b0", overrides=["DAPG.step_size = 0.1"], seed=1, tags={"git_commit": "f" * 40, "torch": "2.8"})
    found = told(tmp_path, "a0", "b0")
    assert found["settings"] == {"agent.step_size": ["0.05", "0.1"], "seed": ["0", "1"]}
    assert found["facts"] == {
        "git_commit": ["0123456789", "f" * 10],
        "torch": ["2.9.1", "2.8"],
        "encoder.weights": ["sha:1", "-"],
    }
    assert any(line.split() == ["agent.step_size", "0.05", "0.1"] for line in lines(tmp_path, "a0", "b0"))


def test_of_another_agent_only_what_both_have(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    make_run(tmp_path, "b0", "ablations/door_npg_state")
    found = told(tmp_path, "a0", "b0")["settings"]
    assert found["agent"] == ["DAPG", "NPG"]
    assert not {name for name in found if name.startswith("agent.") and "-" in found[name]}


def test_single_seeds_have_intervals_of_episodes_and_decide_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", top=95)
    make_run(tmp_path, "b0", top=60)
    found = told(tmp_path, "a0", "b0")
    (line,) = [n for n in found["numbers"] if n["metric"] == "final/success"]
    a, b = final(tmp_path, "a0"), final(tmp_path, "b0")
    assert (line["a"], line["b"], line["difference"]) == (a, b, a - b)
    low, high = newcombe(round(a), 100, round(b), 100)
    assert line["interval"] == pytest.approx([100 * low, 100 * high])
    assert line["how"] == "Newcombe: episodes alone, not seeds"
    assert line["better"] is None
    assert any("one seed of a side decides nothing" in text for text in found["warnings"])


def test_groups_of_seeds_have_intervals_of_seeds(tmp_path: Path) -> None:
    a, b = seeds(tmp_path, "a", top=95), seeds(tmp_path, "b", top=60)
    found = told(tmp_path, a, b)
    (line,) = [n for n in found["numbers"] if n["metric"] == "final/success"]
    values = [[final(tmp_path, f"{letter}{seed}") for seed in range(3)] for letter in "ab"]
    gap, low, high = difference(*values, paired=True)
    assert [line["difference"], *line["interval"]] == pytest.approx([gap, low, high])
    assert line["better"] == 1.0
    assert not any("decide" in text for text in found["warnings"])


def test_a_sweep_of_seeds_is_a_side(tmp_path: Path) -> None:
    seeds(tmp_path, "a")
    make_run(tmp_path, "b0", top=60)
    (tmp_path / "5eed").mkdir()
    (tmp_path / "5eed" / "sweep.json").write_text("{}")
    for seed in range(3):
        path = tmp_path / f"a{seed}" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sweep": "5eed"}))
    assert [run["id"] for run in told(tmp_path, "5e", "b0")["a"]["runs"]] == ["a0", "a1", "a2"]


def test_curves_are_compared_where_both_have_been(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", updates=6)
    make_run(tmp_path, "b0", updates=4, status="STOPPED", reason="SIGTERM")
    found = told(tmp_path, "a0", "b0")
    at = [line["step"] for line in found["numbers"] if line["metric"] == "train/success"]
    assert at == [1000, 2000, 3000, 4000]
    (last,) = [n for n in found["numbers"] if (n["metric"], n["step"]) == ("eval/success", 4000)]
    for side, run in (("a", "a0"), ("b", "b0")):
        steps, values = results.read(tmp_path / run).series("eval/success")
        assert last[side] == values[steps.index(4000)]
    assert any(text == "B is not finished: seed 0 stopped at 4,000 steps" for text in found["warnings"])


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        ({"source": "adroit_pen_state"}, "different tasks (door and pen)"),
        ({"overrides": ["Adroit.reward = 'dense'"]}, "different rewards: A sparse, B dense"),
        ({"tags": {"protocol": "stock"}}, "different protocols: A paper, B stock"),
        ({"tags": {"encoder.weights": "b"}}, "different weights of the encoder under the same settings: A a, B b"),
        ({"tags": {"demos.checksum": "ffffffffff"}}, "different demonstrations: A adroit_door-25 (a1b2c3d4)"),
    ],
)
def test_what_cannot_be_compared_is_told(tmp_path: Path, other: dict[str, Any], warning: str) -> None:
    make_run(tmp_path, "a0", tags={"encoder.weights": "a"})
    make_run(tmp_path, "b0", **{"tags": {"encoder.weights": "a"}, **other})
    found = told(tmp_path, "a0", "b0")
    assert any(text.startswith(warning) for text in found["warnings"]), found["warnings"]
    assert any(line.startswith(f"WARNING: {warning}") for line in lines(tmp_path, "a0", "b0"))
    if "tasks" in warning:
        assert {line["difference"] for line in found["numbers"]} == {None}


def test_scores_of_other_kinds_are_not_subtracted(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    make_scored(tmp_path, "b0", "dmc_cartpole_swingup_rad", {0: 10.0, 50_000: 800.0})
    found = told(tmp_path, "a0", "b0")
    assert {line["difference"] for line in found["numbers"]} == {None}
    assert any("success / return" in line for line in lines(tmp_path, "a0", "b0"))


def test_a_run_without_numbers_is_no_traceback(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    make_run(tmp_path, "b0", rows=False, status="FAILED", reason="ValueError")
    assert "B has measured nothing yet" in told(tmp_path, "a0", "b0")["warnings"]
    assert lines(tmp_path, "b0", "a0")


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_breaks_no_words(tmp_path: Path, width: int) -> None:
    make_run(tmp_path, "a0")
    make_run(tmp_path, "b0", overrides=["DAPG.policy_hidden = (8, 8, 8, 8, 8, 8, 8, 8, 8, 8)"], tags={"torch": "2.8"})
    narrow, wide = lines(tmp_path, "a0", "b0", width), lines(tmp_path, "a0", "b0")
    assert max(map(len, narrow)) <= width
    assert {word for line in narrow for word in line.split()} == {word for line in wide for word in line.split()}


def test_names_that_mean_no_two_groups(tmp_path: Path) -> None:
    make_run(tmp_path, "ab12")
    make_run(tmp_path, "cd12", overrides=["DAPG.step_size = 0.1"])
    with pytest.raises(UserError, match="hold the same run"):
        compare("ab12", "ab", print, root=tmp_path)
    with pytest.raises(UserError, match="ab12,cd12 holds 2 methods"):
        compare("ab12,cd12", "ab12", print, root=tmp_path)
    with pytest.raises(UserError, match=r"there is no run or sweep ab13 .*Did you mean ab12\?"):
        compare("ab12", "ab13", print, root=tmp_path)
