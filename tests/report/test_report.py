"""`rrl report`: groups, warnings, numbers, and a page that needs no network."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.report_pages import Parsed, page_of, report_of, rows_of
from helpers.report_runs import make_run, make_scored
from matplotlib.figure import Figure

from rrl.registry import UserError
from rrl.report import figures, notices, numbers, tables, videos
from rrl.report.groups import Group
from rrl.report.write import write
from rrl.statistics import first_at, wilson
from rrl.store import results
from rrl.store.plots import learning_curve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BC = ("Experiment.agent = @BC()", "Experiment.iterations = 0", "BC.policy_hidden = (32, 32)")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on door with two seeds each, of which one names itself in HTML; an untrained one that
    stopped; a run that failed at once; two videos."""
    root = tmp_path_factory.mktemp("mixed")
    for seed in (0, 1):
        make_run(root, f"aa{seed}0", seed=seed, name=f"<b>state & {seed}</b>")
        make_run(
            root,
            f"bb{seed}0",
            "adroit_door_mobilenetv2",
            seed=seed,
            top=80,
            updates=4,
            tags={"mujoco": "9.9.9"},
        )
        (root / f"bb{seed}0" / "videos").mkdir()
        (root / f"bb{seed}0" / "videos" / "000006.mp4").write_bytes(b"film" * 100)
    stopped = {"status": "STOPPED", "reason": "the budget was over", "updates": 2}
    make_run(root, "cc00", "adroit_door_mobilenetv2", ["MobileNetV2.weights = None"], top=30, **stopped)
    failed = {"status": "FAILED", "reason": "RuntimeError: <out of memory>", "rows": False}
    make_run(root, "dd00", seed=2, **failed)
    return root


# --- groups ----------------------------------------------------------------------------------------------


def test_runs_that_differ_in_seed_place_and_evaluations_are_one_group(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", seed=0, overrides=["Experiment.eval_every = 7"])
    make_run(tmp_path, "a1", seed=1, overrides=["Experiment.precision = 'bf16'"])  # no pictures: decides nothing
    make_run(tmp_path, "a2", seed=2, overrides=["DAPG.lam_0 = 0.02"])
    settings = tmp_path / "a1" / results.PARAMS
    settings.write_text(settings.read_text().replace('"threads": "2"', '"threads": "7"'))
    first, second = report_of(tmp_path).groups
    assert [run.run_id for run in first.runs] == ["a0", "a1"]
    assert [run.run_id for run in second.runs] == ["a2"]
    assert (first.label, second.label) == (
        "door · State · DAPG · lam_0 0.01",
        "door · State · DAPG · lam_0 0.02",
    )
    assert "threads" in str(tables.differences(report_of(tmp_path)).rows)


def test_precision_tells_groups_with_pictures_apart(tmp_path: Path) -> None:
    for run_id, precision in (("a0", "fp32"), ("a1", "bf16")):
        make_run(tmp_path, run_id, "adroit_door_mobilenetv2", [f"Experiment.precision = '{precision}'"])
    assert [g.method for g in report_of(tmp_path).groups] == [
        "MobileNetV2 (imagenet-deepsort) · DAPG · precision bf16",
        "MobileNetV2 (imagenet-deepsort) · DAPG · precision fp32",
    ]


def test_labels_say_no_more_than_they_must(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    make_run(tmp_path, "b0", "adroit_door_resnet34")
    make_run(tmp_path, "c0", "adroit_pen_resnet34")
    report = report_of(tmp_path)
    assert [g.label for g in report.groups] == [
        "door · ResNet34 · DAPG",
        "door · State · DAPG",
        "pen · ResNet34 · DAPG",
    ]
    assert [len(groups) for groups in report.methods.values()] == [2, 1]  # ResNet34 on both tasks
    assert ("state", "task") in report.groups[1].settings  # what else differs stands in the table


def test_labels_with_room_for_some_settings_name_those_that_tell_groups_apart(tmp_path: Path) -> None:
    """b differs from a in four settings; c from b in one, which the labels of all three have no room for."""
    others = ["DAPG.gamma = 0.9", "DAPG.gae_lambda = 0.9", "DAPG.step_size = 0.01", "DAPG.lam_0 = 0.5"]
    make_run(tmp_path, "a0")
    make_run(tmp_path, "b0", overrides=others)
    make_run(tmp_path, "c0", overrides=[*others, "DAPG.lam_1 = 0.5"])
    labels = [group.label for group in report_of(tmp_path).groups]
    assert len(set(labels)) == 3, labels


def test_figures_name_every_method_to_its_end(tmp_path: Path) -> None:
    common = ["DAPG.init_std_factor = 0.5", "DemoSet.source = 'adroit_door_paper'"]
    make_run(tmp_path, "a0", overrides=[*common, "DemoSet.episodes = 5"])
    make_run(tmp_path, "b0", overrides=[*common, "DemoSet.episodes = 10"])
    make_run(tmp_path, "c0")  # whose std factor and source make the names of the others long
    report = report_of(tmp_path)
    figure = figures.curves(report.groups, "train")
    assert figure is not None
    told = [" ".join(text.get_text().split()) for text in figure.legends[0].texts]
    assert told == [f"{group.method} · 1 seed" for group in report.groups]
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    box = figure.legends[0].get_window_extent()
    assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 < height / 2
    drawn = figures.times([numbers.compute(group) for group in report.groups], report)
    assert drawn is not None
    assert len({text.get_text() for text in drawn.axes[0].texts if "episodes" in text.get_text()}) == 3


def test_of_two_runs_of_a_seed_the_longer_counts(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", status="FAILED", reason="lost", updates=2, started="2026-10-02T00:00:00+00:00")
    make_run(tmp_path, "a1", updates=6)
    (group,) = report_of(tmp_path).groups
    assert [run.run_id for run in group.runs] == ["a1"]
    assert [run.run_id for run in group.repeats] == ["a0"]
    (entry,) = notices.unfinished(report_of(tmp_path))
    assert "another run of seed 0 got further" in entry.why
    assert entry.again == ""


def test_encoders_are_marked_even_without_tags(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", "adroit_door_mobilenetv2", ["MobileNetV2.weights = None"], rows=False, status="FAILED")
    blind = ["Adroit.state = 'joints'", "State.blind = True"]
    make_run(tmp_path, "b0", "adroit_door_state", blind, rows=False, status="FAILED")
    report = report_of(tmp_path)
    assert [g.encoder for g in report.groups] == ["MobileNetV2 (UNTRAINED)", "State (blind)"]
    items = {notice.text: notice.items for notice in notices.notices(report)}
    assert items["Blind on purpose (joint angles alone, a control):"] == (report.groups[1].label,)


# --- warnings --------------------------------------------------------------------------------------------


def test_warnings_say_which_group_has_what(mixed: Path) -> None:
    found = notices.notices(report_of(mixed))
    serious = {n.text: n.items for n in found if n.serious}
    mujoco = serious["These runs have different versions of mujoco."]
    assert any(item.startswith("9.9.9: door · MobileNetV2 (imagenet-deepsort) · DAPG") for item in mujoco)
    assert any("UNTRAINED" in text for text in serious)
    assert not any("looks" in text for text in serious)  # State sees no pictures: its look does not count
    assert any("Fewer than 3 seeds" in n.text for n in found)


def test_no_warning_without_cause(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run(tmp_path, f"a{seed}", seed=seed)
    assert notices.notices(report_of(tmp_path)) == []
    assert notices.unfinished(report_of(tmp_path)) == []


@pytest.mark.parametrize(
    ("tag", "value", "word"),
    [
        ("protocol", "stock", "protocols"),
        ("reward", "dense", "rewards"),
        ("demos.checksum", "0" * 16, "demonstrations"),
        ("mujoco", "9.9.9", "versions of mujoco"),
        ("encoder.weights", "imagenet:ffff", "weights of the encoder under the same settings"),
    ],
)
def test_mixed_conditions_are_warned_of(tmp_path: Path, tag: str, value: str, word: str) -> None:
    for seed in (0, 1, 2):
        weights = {"encoder.weights": "imagenet:abcd"}
        make_run(tmp_path, f"a{seed}", seed=seed, tags=weights | ({tag: value} if seed == 2 else {}))
    (notice,) = notices.notices(report_of(tmp_path))
    assert notice.serious
    assert notice.text == f"These runs have different {word}."


def test_equal_weights_under_two_names_are_told(tmp_path: Path) -> None:
    for run_id, word in (("a0", "imagenet"), ("b0", "imagenet-deepsort")):
        settings = [f"MobileNetV2.weights = '{word}'"]
        make_run(tmp_path, run_id, "adroit_door_mobilenetv2", settings, tags={"encoder.weights": f"{word}:aa8f"})
    report = report_of(tmp_path)
    assert [group.encoder for group in report.groups] == ["MobileNetV2", "MobileNetV2 (imagenet-deepsort)"]
    (notice,) = [notice for notice in notices.notices(report) if "equal" in notice.text]
    assert not notice.serious and notice.items == ("aa8f: imagenet, imagenet-deepsort",)


def test_other_settings_of_an_encoder_may_have_other_weights(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for network in ("resnet34", "mobilenetv2"):
            tags = {"encoder.weights": f"imagenet:{network}"}
            make_run(tmp_path, f"{network}{seed}", f"adroit_door_{network}", seed=seed, tags=tags)
    assert not any("weights" in notice.text for notice in notices.notices(report_of(tmp_path)))


def test_protocols_of_different_environments_are_not_compared(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run(tmp_path, f"a{seed}", seed=seed, tags={"protocol": "paper"})
        make_scored(tmp_path, f"b{seed}", "dmc_walker_walk_state_sac", {0: 1.0, 50_000: 2.0}, seed=seed)
    texts = [notice.text for notice in notices.notices(report_of(tmp_path))]
    assert not any("protocols" in text for text in texts)


def test_the_look_of_pictures_is_compared_among_runs_that_see_some(tmp_path: Path) -> None:
    for run_id, source in (("a0", "adroit_door_state"), ("b0", "adroit_door_mobilenetv2")):
        make_run(tmp_path, run_id, source, ["Adroit.look = 'fast'"])
    make_run(tmp_path, "a1", seed=1, overrides=["Adroit.look = 'default'"])
    report = report_of(tmp_path)
    assert [len(group.runs) for group in report.groups] == [1, 2]  # State sees no pictures: its look decides nothing
    assert not any("looks" in notice.text for notice in notices.notices(report))
    make_run(tmp_path, "b1", "adroit_door_mobilenetv2", ["Adroit.look = 'default'"], seed=1)
    report = report_of(tmp_path)
    assert len(report.groups) == 3
    assert any("different looks of the pictures" in notice.text for notice in notices.notices(report))


def test_failed_and_stopped_runs_say_how_to_go_on(mixed: Path) -> None:
    found = {u.run.run_id: u for u in notices.unfinished(report_of(mixed))}
    assert found.keys() == {"cc00", "dd00"}
    assert found["cc00"].again == "rrl resume cc00"
    assert found["dd00"].why == "RuntimeError: <out of memory>"


# --- numbers ---------------------------------------------------------------------------------------------


def test_table_pools_episodes_and_gives_wilson_of_them(mixed: Path) -> None:
    report = report_of(mixed)
    final = numbers.final(report.groups[0])
    runs = [results.read(mixed / run_id) for run_id in ("bb00", "bb10")]
    wins = sum(round(run.last("final/success") or 0) for run in runs)  # of 100 episodes each
    assert final.group.encoder == "MobileNetV2 (imagenet-deepsort)"
    assert (final.scores.wins, final.scores.episodes) == (wins, 200)
    low, high = wilson(wins, 200)
    assert final.scores.interval == (100 * low, 100 * high)
    assert final.scores.mean == pytest.approx(wins / 2)
    row = rows_of(tables.final([final], figures.looks(report)))[0]
    assert row["n"] == "200"
    assert row["95 % Wilson"] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert row["samples"] == "4k"
    assert float(row["hours"]) == pytest.approx(np.mean([r.seconds for r in runs]) / 3600, rel=0.05)
    assert f"<span>{100 * low:.1f} to {100 * high:.1f}</span>" in page_of(mixed)


def test_controls_have_columns_of_their_own(tmp_path: Path) -> None:
    for seed, value in ((0, 60.0), (1, 70.0)):
        folder = make_run(tmp_path, f"a{seed}", seed=seed)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 6000, "time": 2, "metrics": {"final/blind_success": value}}) + "\n")
    make_run(tmp_path, "b0", "adroit_door_mobilenetv2")
    report = report_of(tmp_path)
    rows = rows_of(tables.final([numbers.final(group) for group in report.groups], figures.looks(report)))
    assert [row["blind (%)"] for row in rows] == [tables.NONE, "65.0"]
    page_of(tmp_path)
    with (tmp_path / "report_files" / "table.csv").open() as file:
        assert [row["blind"] for row in csv.DictReader(file)] == ["", "65.0"]
    assert "final evaluation, blind" in labels_of_curve(tmp_path / "a0")


def labels_of_curve(folder: Path) -> list[str]:
    """What the learning curve that a run leaves shows."""
    run, figures = results.read(folder), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, _path: figures.append(figure))
        learning_curve(run.rows, "title", run.score, folder / "curve.png")
    labels: list[str] = figures[0].axes[0].get_legend_handles_labels()[1]
    return labels


def test_without_a_final_evaluation_the_last_one_counts_and_says_so(mixed: Path) -> None:
    group = next(g for g in report_of(mixed).groups if "UNTRAINED" in g.encoder)
    final = numbers.final(group)
    assert (final.scores.metric, final.scores.episodes) == ("eval/success", 25)
    assert final.scores.mean == group.runs[0].last("eval/success")
    assert final.sampled.metric == "train/success"


def test_runs_without_the_final_evaluation_are_not_pooled_with_those_that_have_it(tmp_path: Path) -> None:
    make_run(tmp_path, "a0", seed=0)
    make_run(tmp_path, "a1", seed=1, status="STOPPED", reason="SIGTERM", updates=3)
    (group,) = report_of(tmp_path).groups
    final = numbers.final(group)
    assert (final.scores.metric, len(final.scores.by_seed), final.scores.episodes) == ("final/success", 1, 100)


def test_means_end_where_the_group_got_to(tmp_path: Path) -> None:
    for seed, updates in ((0, 6), (1, 5)):
        make_run(tmp_path, f"a{seed}", seed=seed, updates=updates)
    make_run(tmp_path, "a2", seed=2, updates=2, status="FAILED", reason="lost")
    (group,) = report_of(tmp_path).groups
    curve = numbers.curve(group, "train")
    assert curve is not None
    assert curve.x == [1000, 2000, 3000, 4000, 5000]
    assert len(curve.seeds) == 3
    assert [run.run_id for run in curve.short] == ["a2"]
    own = [run.series("train/success")[1][:5] for run in group.runs[:2]]
    assert curve.mean == pytest.approx(np.mean(own, axis=0))
    assert curve.band == "lowest to highest seed"
    assert curve.low == pytest.approx(np.min(own, axis=0))
    figure = figures.curves([group], "train")
    assert figure is not None
    assert figure.legends[0].texts[0].get_text().replace("\n", " ").endswith("· 2 of 3 seeds")


def test_the_band_of_one_seed_is_of_its_episodes(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    (group,) = report_of(tmp_path).groups
    for space, episodes in (("train", "train/episodes"), ("eval", "eval/episodes")):
        curve = numbers.curve(group, space)
        assert curve is not None
        assert curve.band.startswith("of a single seed, 95 % Wilson")
        counts = group.runs[0].series(episodes)[1]
        expected = [wilson(round(m / 100 * n), int(n)) for m, n in zip(curve.mean, counts, strict=True)]
        assert np.allclose(np.column_stack((curve.low, curve.high)), 100 * np.array(expected))
        assert (curve.low < curve.mean).any()


def test_samples_to_threshold(mixed: Path) -> None:
    group = next(g for g in report_of(mixed).groups if g.encoder == "State")
    found = numbers.reached(group, 50.0)
    assert found.firsts == [first_at(*run.series("train/success"), 50.0) for run in group.runs[:2]]
    text = rows_of(tables.thresholds(report_of(mixed), figures.looks(report_of(mixed))))
    untrained = next(row for row in text if "UNTRAINED" in row["method"])
    assert untrained["steps to 90 %"] == "not reached by 2k"


def test_equal_samples_is_as_far_as_all_groups_got(mixed: Path) -> None:
    report = report_of(mixed)
    space, step = numbers.common(report.groups)
    assert (space, step) == ("eval", 2000)  # where the stopped run is
    metric = "eval/success"
    run = report.groups[0].runs[0]
    measured = numbers.at(run, metric, 2500)
    assert measured is not None
    steps, values = run.series(metric)
    assert measured.value == values[steps.index(2000)]  # measured, never made up between
    assert numbers.at(run, metric, 10**9) is None


def test_pairs_of_few_seeds_compare_episodes_and_of_more_seeds_pairs(tmp_path: Path, mixed: Path) -> None:
    found, _, _ = numbers.pairs(report_of(mixed).groups)
    assert {p.how for p in found} == {"Newcombe: episodes alone, not seeds"}
    for seed in (0, 1, 2):
        make_run(tmp_path, f"a{seed}", seed=seed, top=90)
        make_run(tmp_path, f"b{seed}", "adroit_door_resnet34", seed=seed, top=40)
        make_run(tmp_path, f"c{seed}", "adroit_door_mobilenetv2", seed=seed + 7, top=60)
    found, space, step = numbers.pairs(report_of(tmp_path).groups)
    metric = f"{space}/success"
    named = {(p.first.encoder, p.second.encoder): p for p in found}
    pair = named["ResNet34", "State"]
    assert (pair.paired, pair.how, pair.seeds) == (True, "bootstrap over pairs of seeds", (3, 3))
    gaps = [
        results.read(tmp_path / f"b{s}").series(metric)[1][-1] - results.read(tmp_path / f"a{s}").series(metric)[1][-1]
        for s in (0, 1, 2)
    ]
    assert step == 6000
    assert pair.gap == pytest.approx(np.mean(gaps))
    assert min(gaps) <= pair.low <= pair.gap <= pair.high <= max(gaps)
    assert pair.better == 0.0
    assert not named["MobileNetV2 (imagenet-deepsort)", "State"].paired


def test_time_of_an_update_is_split_without_rest(mixed: Path) -> None:
    for group in report_of(mixed).groups:
        found = numbers.compute(group)
        whole = [row.metrics["time/iteration"] for r in group.runs for row in r.rows if "time/iteration" in row.metrics]
        assert sum(found.seconds.values()) == pytest.approx(np.mean(whole))
        assert min(found.seconds.values()) >= 0


# --- the page --------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(mixed: Path) -> None:
    text = page_of(mixed)
    parsed = Parsed(text)
    for tag, attributes in parsed.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "background"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert {t for t in re.findall(r"url\(\s*['\"]?([^)]{5})", text) if not t.startswith(("#", "data:"))} == set()
    assert "@import" not in text
    assert "http:" not in text
    assert "https:" not in text
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))  # of several figures in one page
    used = {a[k][1:] for _, a in parsed.tags for k in ("href", "xlink:href") if a.get(k, "").startswith("#")}
    assert used | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_names_are_text_not_html(mixed: Path) -> None:
    make_run(
        mixed.parent / "names",
        "ee00",
        name="<script>alert(1)</script> $x$",
        status="STOPPED",
        reason="<i>&</i>",
    )
    text = page_of(mixed.parent / "names", verdict="<u>worse</u>\nthan published")
    parsed = Parsed(text)
    assert not {"script", "i", "u"} & {tag for tag, _ in parsed.tags}
    assert "<script>alert(1)</script> $x$" in parsed.text
    assert "<u>worse</u> than published" in parsed.text


def test_every_section_is_there(mixed: Path) -> None:
    parsed = Parsed(page_of(mixed))
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    links = [attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a"]
    assert (
        sections
        == links
        == [
            "curves",
            "aggregate",
            "thresholds",
            "final",
            "pairs",
            "compute",
            "videos",
            "configuration",
            "notes",
        ]
    )
    assert sum(tag == "video" for tag, _ in parsed.tags) == 2
    assert sum(attributes.get("role") == "img" for _, attributes in parsed.tags) == 4


def test_files_beside_the_page(mixed: Path) -> None:
    page_of(mixed)
    folder = mixed / "report_files"
    names = ("curves-train-door", "curves-eval-door", "aggregate", "compute")
    pictures = {f"{name}.{ending}" for name in names for ending in ("png", "svg", "pdf")}
    assert {p.name for p in folder.iterdir()} == pictures | {"curves.csv", "table.csv"}
    with (folder / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["run", "name", "task", "encoder", "agent", "seed", "step", "metric", "value"]
    mine = [(int(r["step"]), float(r["value"])) for r in lines if (r["run"], r["metric"]) == ("aa10", "train/success")]
    assert mine == list(zip(*results.read(mixed / "aa10").series("train/success"), strict=True))
    with (folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["n"]) for row in table] == [200, 25, 200]
    assert float(table[0]["low"]) == 100 * wilson(int(table[0]["wins"]), 200)[0]


def test_only_reports_are_overwritten(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.html"
    out.write_text("<h1>my thesis</h1>")
    with pytest.raises(UserError, match="choose another name"):
        write(["aa00"], out, print, root=mixed)
    assert out.read_text() == "<h1>my thesis</h1>"
    with pytest.raises(UserError, match="is a folder"):
        write(["aa00"], tmp_path, print, root=mixed)
    out.unlink()
    for _ in range(2):
        write(["aa00"], out, print, root=mixed)
    with pytest.raises(UserError, match="there are no runs"):
        write([], out, print, root=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "runs",
    [
        [{"rows": False, "status": "FAILED", "reason": "RuntimeError"}],
        [{"evaluate": False}],
        [{"overrides": BC, "updates": 0}],
        [{"overrides": BC, "updates": 0, "evaluate": False}, {"source": "adroit_door_resnet34"}],
        [{"updates": 0, "status": "STOPPED", "reason": "SIGTERM"}],
    ],
    ids=["no rows", "no evaluators", "BC", "BC unmeasured beside another", "nothing but the warm start"],
)
def test_thin_runs_make_a_page(tmp_path: Path, runs: list[dict[str, object]]) -> None:
    for n, settings in enumerate(runs):
        make_run(tmp_path, f"a{n}", **settings)  # type: ignore[arg-type]
    text = Parsed(page_of(tmp_path)).text
    assert "nan" not in text.split()
    assert "Final results" in text


@pytest.mark.slow
def test_forty_runs_make_a_page(tmp_path: Path) -> None:
    for method in range(20):
        for seed in (0, 1):
            make_run(
                tmp_path,
                f"r{method:02}{seed}",
                overrides=[f"DAPG.lam_0 = {method / 100}"],
                seed=seed,
                updates=2,
            )
    report = report_of(tmp_path)
    assert [len(g.runs) for g in report.groups] == [2] * 20
    assert [float(dict(g.extras)["lam_0"]) for g in report.groups] == [n / 100 for n in range(20)]
    looks = figures.looks(report)
    assert len({(look.colour, str(look.dash)) for look in looks.values()}) == 20
    assert len(numbers.pairs(report.groups)[0]) == 19  # with the best only, not 190
    page_of(tmp_path)


def test_published_points_are_marked_on_their_task(mixed: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "p0", "adroit_pen_state")
    other = figures.Published("another lab", "door", [0, 5000], [30.0, 90.0], [20.0, 80.0], [40.0, 95.0])
    for root, count in ((mixed, 1), (tmp_path, 0)):
        groups: Sequence[Group] = report_of(root).groups
        figure = figures.curves(groups, "train", [other])
        assert figure is not None
        dotted = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"]
        assert [line.get_ydata().tolist() for line in dotted] == [[30.0, 90.0]] * count
        assert all(line.get_marker() == "o" for line in dotted)
    assert Parsed(page_of(mixed, published=[other, other])).text.count("another lab") == 1


def test_videos_beyond_the_limit_are_listed(mixed: Path) -> None:
    report = report_of(mixed)
    films = videos.films(report, limit=700)  # one of 400 bytes is 533 in base64
    assert [bool(film.data) for film in films] == [True, False]
    assert videos.listed(films)[0].path == mixed / "bb10" / "videos" / "000006.mp4"


# --- in a browser ----------------------------------------------------------------------------------------


def browse(tmp_path: Path, page: Path) -> tuple[str, set[str]]:
    """(the page's DOM, URLs that it asked for, those that the browser itself asks for left out)."""
    log = tmp_path / "net.json"
    off = "no-first-run hide-scrollbars allow-file-access-from-files disable-gpu disable-quic disable-sync "
    off += "disable-background-networking disable-component-update"
    arguments = ["--headless", "--no-sandbox", *(f"--{flag}" for flag in off.split())]
    arguments += [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={log}",
        "--virtual-time-budget=2000",
    ]
    arguments += ["--window-size=900,1000", "--dump-dom", page.as_uri()]
    assert CHROMIUM is not None
    done = subprocess.run([CHROMIUM, *arguments], capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    own = "not an origin"
    return done.stdout, {e["url"] for e in events if "url" in e and e.get("initiator", own) != own}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_asks_for_nothing_and_a_telephone_need_not_scroll_sideways(mixed: Path, tmp_path: Path) -> None:
    text = page_of(mixed)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    assert policy is not None
    (tmp_path / "page.html").write_text(text.replace(policy[0], ""))  # which alone would forbid requests
    (tmp_path / "frame.html").write_text(
        '<img src="http://127.0.0.1:9/control.png">'
        '<iframe src="page.html" style="width:400px;height:900px;border:0"></iframe>'
        "<p></p><script>onload = () => { const d = frames[0].document.documentElement;"
        "document.querySelector('p').textContent = `${d.clientWidth} ${d.scrollWidth} wide` }</script>"
    )
    dom, asked = browse(tmp_path, tmp_path / "frame.html")
    assert "http://127.0.0.1:9/control.png" in asked  # requests do show
    assert {url for url in asked if not url.startswith(("file:", "data:"))} == {"http://127.0.0.1:9/control.png"}
    assert "<p>400 400 wide</p>" in dom
