"""The cost tables of `rrl report`: what an update's time went to, and what ledgers tell of a threshold."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.report_pages import Parsed, page_of, report_of, rows_of
from helpers.report_runs import log, make_run

from rrl.report import figures, numbers, tables


def test_learning_is_all_that_an_agent_timed_or_its_update(tmp_path: Path) -> None:
    """Older runs have no `time/update`, and newer ones have it beside their sampling."""
    common = {"time/iteration": 20.0, "time/sampling": 8.0, "time/simulate": 8.0, "time/steps_per_second": 125.0}
    own = {"time/policy_update": 2.0, "time/anything": 3.0}
    for run_id, more, learning in (("a0", own, 5.0), ("b0", {**own, "time/update": 6.0}, 6.0)):
        folder = make_run(tmp_path / run_id, run_id)
        log(folder, [(1000, {"iteration": 1.0, **common, **more})])
        seconds = numbers.compute(report_of(tmp_path / run_id).groups[0]).seconds
        expected = {"simulate": 8, "learning": learning, "evaluating": 12 - learning}
        assert {part: value for part, value in seconds.items() if value} == pytest.approx(expected)


def test_cost_is_by_the_ledgers_and_tells_what_a_threshold_took(tmp_path: Path) -> None:
    """Of the seeds whose ledger begins with them; compute is taken at the first evaluation that showed it."""

    def ledger(compute: float, since: float = 0.0) -> dict[str, float]:
        costs = {"simulate_seconds": 3.0, "update_seconds": 2.0, "compute_seconds": compute, "multiply_adds": 1e12}
        return {f"cost/{name}": v for name, v in (costs | {"peak_memory_mb": 900.0, "since_step": since}).items()}

    for seed, began, slow in ((0, 0.0, 1.0), (1, 0.0, 3.0), (2, 50.0, 9.0)):
        folder = make_run(tmp_path, f"a{seed}", seed=seed)
        curve = ((0, 10.0), (100, 60.0), (200, 40.0), (300, 95.0))
        log(folder, [(s, {"eval/success": v, **ledger(slow * s / 10, began)}) for s, v in curve])
    make_run(tmp_path, "b0", "adroit_door_mobilenetv2")  # of a version without ledgers
    report = report_of(tmp_path)
    found = {cost.group.encoder: cost for group in report.groups if (cost := numbers.cost(group))}
    assert list(found) == ["State"]
    cost = found["State"]
    assert (cost.seeds, cost.compute, cost.multiply_adds, cost.memory) == (2, 60.0, 1e12, 900.0)
    assert cost.seconds == {"simulate": 3.0, "update": 2.0}
    assert cost.reached == {50.0: [(100, 10.0), (100, 30.0)], 90.0: [(300, 30.0), (300, 90.0)]}
    (row,) = rows_of(tables.costs([cost], report, figures.looks(report)))
    assert (row["update (s)"], row["compute (s)"], row["multiply-adds"]) == ("2", "60", "1.00e+12")
    assert (row["compute to 50 %"], row["compute to 90 %"]) == ("20 s", "60 s")
    text = Parsed(page_of(tmp_path)).text
    assert "Cost in all" in text and "of 2 of 3 seeds" in text and "cost.csv" in text
    with (tmp_path / "report_files" / "cost.csv").open() as file:
        assert [row["compute_seconds"] for row in csv.DictReader(file)] == ["30.0", "90.0", "270.0"]


def test_a_threshold_that_was_never_shown_has_no_cost(tmp_path: Path) -> None:
    costs = {"cost/since_step": 0.0, "cost/compute_seconds": 5.0, "cost/multiply_adds": 1e9}
    log(make_run(tmp_path, "a0"), [(100, {"eval/success": 20.0, **costs})])
    report = report_of(tmp_path)
    (group,) = report.groups
    cost = numbers.cost(group)
    assert cost is not None and cost.reached == {50.0: [None], 90.0: [None]}
    ((*_, to_90),) = tables.costs([cost], report, figures.looks(report)).rows
    assert (to_90.text, to_90.small) == (tables.NONE, "by 0 of 1 seeds")
    make_run(old := tmp_path / "old", "b0")
    assert "Cost in all" not in page_of(old) and not (old / "report_files" / "cost.csv").exists()
