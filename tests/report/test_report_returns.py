"""`rrl report` on runs that have returns and no success rate: table 1, and what must not be said."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.report_pages import Parsed, page_of, report_of, rows_of
from helpers.report_runs import log, make_run, make_scored
from rich.console import Console

from rrl.encoders import ContrastiveCNN, FixedEncoder, PixelCNN
from rrl.encoders.fixed import save_encoder
from rrl.registry import UserError
from rrl.report import figures, numbers, table1, tables
from rrl.reproduce.published import load
from rrl.sweeps.engine import Entry
from rrl.sweeps.plan import Sweep, plan
from rrl.sweeps.table import Table

CARTPOLE, WALKER = "dmc_cartpole_swingup", "dmc_walker_walk"
DASH = tables.NONE


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cartpole: RAD with three seeds, of which one got to 500k and one stopped at 50k; CURL with one seed to
    100k; RRL_SAC, which evaluated nothing. Walker: State SAC with two seeds."""
    root = tmp_path_factory.mktemp("scored")
    make_scored(root, "a0", f"{CARTPOLE}_rad", {0: 30.0, 100_000: 800.5, 500_000: 860.0}, seed=0)
    make_scored(root, "a1", f"{CARTPOLE}_rad", {0: 50.0, 100_000: 820.25}, seed=1)
    stopped = {"status": "STOPPED", "reason": "SIGTERM"}
    make_scored(root, "a2", f"{CARTPOLE}_rad", {0: 10.0, 50_000: 999.0}, seed=2, **stopped)
    make_scored(root, "b0", f"{CARTPOLE}_curl", {0: 30.0, 50_000: 512.0}, steps=100_000)
    make_scored(root, "c0", f"{CARTPOLE}_rrl_sac_mobilenetv2", {}, steps=100_000)
    for seed, score in ((0, 940.0), (1, 950.0)):
        make_scored(root, f"d{seed}", f"{WALKER}_state_sac", {0: 20.0, 500_000: score}, seed=seed)
    return root


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RRL on door and RAD on cartpole."""
    root = tmp_path_factory.mktemp("both")
    for seed in (0, 1):
        make_run(root, f"a{seed}", seed=seed)
        make_scored(root, f"b{seed}", f"{CARTPOLE}_rad", {0: 30.0, 100_000: 700.0 + seed}, seed=seed)
    return root


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def section(text: str, name: str) -> str:
    """The words of a section of the page."""
    return Parsed(text.split(f'<section id="{name}">')[1].split("</section>")[0]).text


def test_tasks_have_their_domains_name(scored: Path) -> None:
    assert list(report_of(scored).tasks) == ["cartpole swingup", "walker walk"]


def test_table_1_is_the_papers_layout_with_means_over_the_seeds_that_got_there(scored: Path) -> None:
    report = report_of(scored)
    table = table1.table1(report.judged(counted=False))
    assert table.columns == [
        "budget",
        "task",
        "RRL_SAC (MobileNetV2 (imagenet-deepsort) · SAC)",
        "RAD (PixelCNN · RAD)",
        "CURL (ContrastiveCNN · CURL)",
        "State SAC (State · SAC)",
        *(f"published: {name}" for name in ("RAD", "CURL", "SAC+AE", "State SAC")),
    ]
    shown = {(row[0].text, row[1].text): row for row in table.rows}
    shown = {(budget.replace("\xa0", " "), task): row for (budget, task), row in shown.items()}
    assert [key[0] for key in shown] == ["500k steps"] * 2 + ["100k steps"] * 2
    cartpole, walker = ("cartpole swingup", "walker walk")
    half = [(c.text.replace("\xa0", " "), c.small) for c in shown["100k steps", cartpole][2:6]]
    deviation = statistics.stdev([800.5, 820.25])
    assert half == [
        (DASH, "0 of 1 seed"),
        (f"810 ± {deviation:.0f}", "2 of 3 seeds"),  # seed 2 stopped before
        ("512", "1 seed; evaluated at 50k"),
        (DASH, "no runs"),
    ]
    whole = [(c.text.replace("\xa0", " "), c.small) for c in shown["500k steps", cartpole][2:6]]
    assert whole == [(DASH, "0 of 1 seed"), ("860", "1 of 3 seeds"), (DASH, "0 of 1 seed"), (DASH, "no runs")]
    assert [c.text.replace("\xa0", " ") for c in shown["500k steps", walker][5:7]] == ["945 ± 7", "918 ± 16"]
    assert shown["100k steps", walker][5].text == DASH  # the evaluation before training is no score


def test_table_1_tells_what_tasks_of_a_column_do_not_share(tmp_path: Path) -> None:
    make_scored(tmp_path, "a0", f"{CARTPOLE}_state_sac", {100_000: 850.0})
    make_scored(tmp_path, "b0", f"{WALKER}_state_sac", {100_000: 600.0}, ["SAC.batch = 256"])
    twice = ["SAC.batch = 256", "SAC.updates_per_step = 2"]  # a column of its own, which tells that
    make_scored(tmp_path, "c0", f"{WALKER}_state_sac", {100_000: 700.0}, twice)
    table = table1.table1(report_of(tmp_path).judged(counted=False))
    found = [(row[1].text, row[2].text, row[2].small) for row in table.rows[2:]]
    assert found == [
        ("cartpole swingup", "850", "1 seed; batch 1024"),
        ("walker walk", "600", "1 seed; batch 256"),
    ]
    assert [row[3].small for row in table.rows[2:]] == ["no runs", "1 seed; batch 256"]


def test_the_papers_names_are_only_for_its_methods(tmp_path: Path) -> None:
    untrained = ["MobileNetV2.weights = None"]
    make_scored(tmp_path, "a0", f"{CARTPOLE}_rrl_sac_mobilenetv2", {0: 1.0, 50_000: 2.0}, untrained)
    (tmp_path / "a0" / "tags.json").write_text('{"encoder": "MobileNetV2 (UNTRAINED)"}')
    make_scored(tmp_path, "b0", f"{CARTPOLE}_sac_ae", {0: 1.0, 50_000: 2.0})
    make_scored(tmp_path, "c0", f"{CARTPOLE}_rrl_sac_resnet34", {0: 1.0, 50_000: 2.0})
    found = [(g.encoder, table1.column(g)) for (g,) in table1.in_order(report_of(tmp_path))]
    assert found == [("ResNet34", "RRL_SAC"), ("AutoencoderCNN", "SAC+AE"), ("MobileNetV2 (UNTRAINED)", "")]


def test_the_fixed_encoders_column_is_for_rads_alone(tmp_path: Path) -> None:
    for n, kind in enumerate((PixelCNN, ContrastiveCNN)):
        encoder = kind(kind.Config(), cameras=1)
        path = tmp_path / f"{kind.__name__}.safetensors"
        save_encoder(path, encoder, encoder.head(torch.Generator()), {})
        at = [f"FixedEncoder.file = '{path}'"]
        run = make_scored(tmp_path, f"a{n}", f"{CARTPOLE}_fixed_rad", {0: 1.0, 50_000: 2.0}, at)
        label = FixedEncoder.Config(file=str(path)).label()
        (run / "tags.json").write_text(json.dumps({"encoder": label}))
    found = {table1.column(g) for (g,) in table1.in_order(report_of(tmp_path))}
    assert found == {"Fixed RAD encoder", ""}


def test_scores_csv_has_all_digits_and_each_seed(scored: Path) -> None:
    page_of(scored)
    lines = lines_of(scored / "report_files" / "scores.csv")
    ours = {(r["task"], r["budget"], r["method"]): r for r in lines if r["source"] == "these runs"}
    rad = ours["cartpole swingup", "100000", "RAD"]
    assert float(rad["mean"]) == statistics.mean([800.5, 820.25])
    assert float(rad["std"]) == pytest.approx(statistics.stdev([800.5, 820.25]), rel=1e-12)
    assert (rad["seeds"], rad["runs"], rad["values"]) == ("2", "3", "0=800.5 1=820.25")
    assert rad["evaluated_at"] == "0=100000 1=100000"
    curl = ours["cartpole swingup", "500000", "CURL"]
    assert (curl["seeds"], curl["mean"], curl["std"], curl["values"]) == ("0", "", "", "")
    told = {r["source"] for r in lines} - {"these runs"}
    assert told == {table1.published().label}
    assert "not checked" in told.pop()
    assert len(lines) == 2 * 4 + 2 * 2 * 4  # ours by budget and group; published by budget, task and method


def test_published_scores_are_those_of_facts_and_no_curves() -> None:
    found = table1.published().scores
    assert len(found) == 6 * 2 * 4
    assert found["cheetah run", 500_000, "CURL"] == (518, 28)
    assert found["ball_in_cup catch", 100_000, "State SAC"] == (746, 91)
    assert all(curves.seeds for curves in load("fig4", "door"))
    assert load("table1", "cheetah run") == []  # scores, not curves


def test_a_page_about_returns_speaks_of_no_success_rate(scored: Path) -> None:
    text = page_of(scored)
    for name in ("aggregate", "thresholds"):
        words = section(text, name)
        assert "no success test" in words
        assert "%" not in words
    assert "success" not in section(text, "final").lower()
    assert "%" not in section(text, "final").replace("95 %", "")
    assert "nan" not in Parsed(text).text.split()
    assert "not checked" in section(text, "scores")
    names = {path.name for path in (scored / "report_files").iterdir()}
    curves = {f"curves-{kind}-{task}" for kind in ("train", "eval") for task in ("cartpole_swingup", "walker_walk")}
    drawn = curves | {"tasks-train", "tasks-eval", "compute"}
    pictures = {f"{name}.{ending}" for name in drawn for ending in ("png", "svg", "pdf")}
    assert names == pictures | {"curves.csv", "table.csv", "scores.csv", "returns.csv"}
    assert lines_of(scored / "report_files" / "table.csv") == []


@pytest.mark.parametrize(
    "run",
    [
        {"scores": {}, "steps": 100_000},
        {"scores": {0: 25.0}, "status": "STOPPED", "reason": "SIGTERM"},
        {"scores": {0: 25.0}, "steps": 600_000},
        {"scores": {}, "steps": 0, "status": "FAILED", "reason": "RuntimeError"},
    ],
    ids=["no evaluators", "nothing but the first evaluation", "no evaluation since", "nothing measured"],
)
def test_thin_runs_make_a_page(tmp_path: Path, run: dict[str, Any]) -> None:
    make_scored(tmp_path, "a0", f"{CARTPOLE}_rad", **run)
    text = page_of(tmp_path)
    assert "nan" not in Parsed(text).text.split()
    if report_of(tmp_path).judged(counted=False).groups:
        ours = [row[2].text for row in table1.table1(report_of(tmp_path).judged(counted=False)).rows]
        assert ours == [DASH, DASH]
        assert "of 1 seed" in section(text, "scores")


def test_curves_of_returns_have_their_own_axis(both: Path) -> None:
    report = report_of(both)
    assert {task: groups[0].score.name for task, groups in report.tasks.items()} == {
        "cartpole swingup": "return",
        "door": "success",
    }
    figure = figures.curves(report.judged(counted=False).groups, "eval")
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "return"
    assert figure.axes[0].get_ylim()[1] > 700
    figure = figures.curves(report.judged(counted=True).groups, "eval")
    assert figure is not None
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_ylim()) == ("success (%)", (-3, 103))


def test_where_groups_ended(scored: Path) -> None:
    report = report_of(scored)
    finals = [numbers.final(group) for group in report.judged(counted=False).groups]
    rows = {(r["task"], r["encoder"]): r for r in rows_of(tables.final(finals, figures.looks(report)))}
    walker = rows["walker walk", "State"]
    assert (walker["return"].replace("\xa0", " "), walker["seeds"], walker["n"]) == ("945 ± 7", "2", "20")
    assert (walker["samples"], walker["hours"]) == ("500k", f"{10 * 100 / 3600:.2g}")
    assert walker["steps/s"] == "500"
    silent = rows["cartpole swingup", "MobileNetV2 (imagenet-deepsort)"]
    assert (silent["return"], silent["seeds"], silent["n"]) == (DASH, "0", DASH)
    page_of(scored)
    lines = {(r["task"], r["method"]): r for r in lines_of(scored / "report_files" / "returns.csv")}
    assert lines["walker walk", "State SAC"]["values"] == "0=940.0 1=950.0"


def test_a_final_evaluation_of_returns_counts_first(tmp_path: Path) -> None:
    make_scored(tmp_path, "a0", f"{CARTPOLE}_rad", {0: 30.0, 100_000: 700.0})
    with (tmp_path / "a0" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100000, "time": 2, "metrics": {"final/return": 777.0, "final/episodes": 100}}\n')
    (group,) = report_of(tmp_path).groups
    scores = numbers.final(group).scores
    assert (scores.metric, scores.mean, scores.std, scores.episodes) == (
        "final/return",
        777.0,
        None,
        100,
    )


def test_a_mixed_report_shows_each_task_by_its_own_measure(both: Path, tmp_path: Path) -> None:
    text = page_of(both)
    assert "Without cartpole swingup" in section(text, "aggregate")
    assert "Without cartpole swingup" in section(text, "thresholds")
    final = section(text, "final")
    assert "700 ± 1" in final  # 700 and 701
    assert "95 % Wilson" in final
    (row,) = lines_of(both / "report_files" / "table.csv")
    assert row["task"] == "door"
    for seed in (0, 1):
        make_run(tmp_path, f"a{seed}", seed=seed)
    alone = report_of(tmp_path)
    for groups in (report_of(both).judged(counted=True), alone):  # door's numbers are as without cartpole
        assert numbers.final(groups.groups[0]).scores.mean == numbers.final(alone.groups[0]).scores.mean
        assert numbers.aggregates(groups)[0][0].end == numbers.aggregates(alone)[0][0].end
    assert numbers.aggregates(report_of(both))[1:] == numbers.aggregates(alone)[1:]


def test_pairs_of_returns_have_an_interval_from_three_seeds_on(scored: Path, tmp_path: Path) -> None:
    cartpole = report_of(scored).tasks["cartpole swingup"]
    found, space, step = numbers.pairs(cartpole)
    assert (space, step) == ("train", 100_000)  # RRL_SAC evaluated nothing
    assert {p.how for p in found} == {"fewer than 3 seeds: no interval"}
    for seed in (0, 1, 2):
        make_scored(tmp_path, f"a{seed}", f"{CARTPOLE}_rad", {0: 0.0, 100_000: 800.0 + seed}, seed=seed)
        make_scored(tmp_path, f"b{seed}", f"{CARTPOLE}_curl", {0: 0.0, 100_000: 500.0}, seed=seed)
    ((pair,), space, step) = numbers.pairs(report_of(tmp_path).groups)
    assert (space, step, pair.gap, pair.better) == ("eval", 100_000, -301.0, 0.0)
    assert -302 <= pair.low <= -301 <= pair.high <= -300
    assert "A - B (return)" in section(page_of(tmp_path), "pairs")


def test_time_of_agents_that_learn_at_every_step(scored: Path) -> None:
    group = next(g for g in report_of(scored).groups if g.agent == "RAD")
    seconds = numbers.compute(group).seconds
    parts = {"simulate": 5, "render": 5, "encode": 5, "act": 5, "learning": 60, "evaluating": 12, "other": 8}
    assert seconds == pytest.approx(parts)


def test_a_search_refuses_a_metric_that_its_runs_never_log() -> None:
    searched = {"grid": ("SAC.gamma = (0.9, 0.99)",), "search": "optuna", "trials": 2}
    with pytest.raises(UserError, match=r"no success test.*--metric summary/last5_return"):
        plan("s", Sweep.Config(files=(f"{CARTPOLE}_state_sac",), **searched))
    plan("s", Sweep.Config(files=(f"{CARTPOLE}_state_sac",), metric="summary/last5_return", **searched))
    searched["grid"] = ("DAPG.gamma = (0.9, 0.99)",)
    with pytest.raises(UserError, match="--metric summary/last5_success"):
        plan("s", Sweep.Config(files=("adroit_door_state",), metric="summary/last5_return", **searched))


def test_a_sweeps_table_shows_returns_where_there_is_no_success(tmp_path: Path) -> None:
    entries = []
    for name, file, logged in (
        ("a0", "adroit_door_state", {"summary/last5_success": 61.5}),
        ("b0", f"{CARTPOLE}_state_sac", {"summary/last5_return": 812.34}),
    ):
        (tmp_path / name).mkdir()
        log(tmp_path / name, [(1, {"iteration": 1, **logged})])
        (job,) = plan("s", Sweep.Config(files=(file,))).jobs
        entries.append(Entry(job, state="finished", folder=tmp_path / name))

    def shown(some: list[Entry]) -> str:
        console = Console(record=True, width=120, file=io.StringIO())
        Table(console).show(some, last=True)
        return console.export_text()

    text = shown(entries)
    assert "train/success or train/return" in text
    assert "61.5 %" in text
    assert re.search(r"812\.3(?! %)", text)
    assert "success" not in shown(entries[1:])
    assert "return" not in shown(entries[:1])
