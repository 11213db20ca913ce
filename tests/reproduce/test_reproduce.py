"""`rrl reproduce`: published numbers as shipped, verdicts against closed forms, the whole way in small."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.report_runs import make_run, make_scored
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from rrl.cli import app
from rrl.config import ginfile
from rrl.registry import UserError
from rrl.report.groups import collect
from rrl.reproduce.figures import FIGURES, Training, Wanted
from rrl.reproduce.published import Curves, compared, every, label, load
from rrl.reproduce.verdict import judge, judge_scores
from rrl.score import success
from rrl.statistics import wilson
from rrl.store import results
from rrl.store.results import Result
from rrl.store.tracking import Row


def run(seed: int, curve: list[tuple[int, float]], **changed: str) -> Result:
    """A run under the published conditions, but for `changed`; 200 episodes an update."""
    conditions = published("door").conditions
    params, tags = {"seed": str(seed)}, {}
    for condition in conditions.values():
        value = condition["value"]["door"] if isinstance(condition["value"], dict) else condition["value"]
        (tags if "tag" in condition else params)[condition.get("tag") or condition["param"]] = value
    for name, value in changed.items():
        key = name.replace("__", ".")
        (tags if key in tags else params)[key] = value
    rows = tuple(Row(s, 0, {"train/success": v, "train/episodes": 200.0}) for s, v in curve)
    return Result(
        params=params,
        labels={},
        score=success("success", 25),
        flags=("success",),
        pictures=True,
        control=False,
        visual=(),
        folder=Path(),
        run_id=f"r{seed}",
        name=f"r{seed}",
        tags=tags,
        packages=(),
        rows=rows,
        status="finished",
        reason="",
        sweep=None,
        job=None,
        started="",
    )


def published(task: str) -> Curves:
    """Figure 4's, of success."""
    return load("fig4", task)[0]


@pytest.mark.parametrize("figure", FIGURES)
def test_published_numbers_belong_to_curves(figure: str) -> None:
    for task in FIGURES[figure].tasks:
        for curves in load(figure, task):
            for steps, values in curves.seeds.values():
                assert len(steps) == len(values)
                assert list(steps) == sorted(steps)
                assert all(0 <= value <= (100 if curves.score.counted else 20_000) for value in values)
    marked = any(wanted.published for wanted in getattr(FIGURES[figure], "wanted", ()))
    assert marked == bool(label(figure))


def test_tasks_without_published_numbers_are_told() -> None:
    with pytest.raises(UserError, match="pen, door"):
        load("fig4", "peg")


def test_published_curves_stand_beside_runs_of_their_tasks(tmp_path: Path) -> None:
    curves = every("fig4")
    assert {each.task for each in curves} == {"pen", "door", "hammer", "relocate"}
    with pytest.raises(UserError, match=r"no curves of table1 .* those of fig4$"):
        every("table1")
    make_run(tmp_path / "runs", "a0", "adroit_door_state")
    (line,) = compared(curves, collect(results.find(["a0"], tmp_path / "runs")))
    assert line.startswith("door · State · DAPG and authors' logs, RRL(ResNet34): NOT COMPARABLE: ")
    assert "encoder State (theirs ResNet)" in line
    told = rrl(tmp_path, "report", "--only", "figures", "--published", "fig4", "--x", "log-steps")
    assert line in told
    assert "authors' logs" in (tmp_path / "figures" / "curves-train-door-log.svg").read_text()


def test_published_means_are_those_of_the_logs() -> None:
    """Means over the three seeds as the project's fact sheet lists them, computed there from the logs."""
    for task, at, mean in (
        ("pen", 40_000, 31.2),
        ("door", 1_000_000, 30.0),
        ("door", 2_000_000, 78.5),
        ("hammer", 4_000_000, 87.7),
        ("relocate", 8_000_000, 74.8),
        ("pen", 12_000_000, 88.2),
    ):
        assert np.mean([*published(task).at(at).values()]) == pytest.approx(mean, abs=0.06), (task, at)


def test_between_points_the_curve_is_straight_and_never_goes_on() -> None:
    curves = published("relocate")
    assert curves.at(1_500_000)["10"] == pytest.approx((0.5 + 7) / 2)
    assert len(curves.at(8_000_000)) == 3
    assert len(curves.at(12_000_000)) == 2  # one of the authors' runs stopped before
    assert curves.at(39_999) == {}


def test_equal_curves_are_within() -> None:
    curves = published("door")
    ours = [run(s, [(2_000_000, v)]) for s, v in zip((10, 11, 12), (78.0, 82.5, 75.0), strict=True)]
    verdict = judge(ours, curves)
    assert verdict is not None
    assert verdict.word == "within"
    assert verdict.difference[0] == pytest.approx(0)
    assert verdict.differences == ()
    assert verdict.lines()[0].startswith("comparable")
    assert verdict.ours.mean == verdict.theirs.mean


def test_intervals_against_the_t_test_and_wilson() -> None:
    values = (20.0, 50.0, 80.0)
    verdict = judge([run(s, [(1_000_000, v)]) for s, v in enumerate(values)], published("door"))
    assert verdict is not None
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert verdict.ours.low == max(0, interval.low)
    assert verdict.ours.high == min(100, interval.high)
    single = judge([run(0, [(1_000_000, 30.0)])], published("door"))
    assert single is not None
    assert (single.ours.low, single.ours.high) == pytest.approx([100 * x for x in wilson(60, 200)])
    assert any("one seed" in note for note in single.notes)
    low = single.difference[0] - math.hypot(single.ours.mean - single.ours.low, single.theirs.high - single.theirs.mean)
    assert single.difference[1] == pytest.approx(low)


@pytest.mark.parametrize(("value", "word"), [(5.0, "below"), (95.0, "above")])
def test_far_curves_are_told_apart(value: float, word: str) -> None:
    verdict = judge([run(s, [(1_000_000, value)]) for s in range(3)], published("door"))
    assert verdict is not None
    assert verdict.word == word


def test_the_same_updates_are_compared() -> None:
    """Ours on the authors' very line, at 5 updates below 1M steps: no difference, though the curve rises."""
    curves = published("door")
    steps = [800_000, 840_000, 880_000, 920_000, 960_000]
    line = [(step, float(np.mean([*curves.at(step).values()]))) for step in steps]
    verdict = judge([run(0, [(40_000, 0.2), *line])], curves)
    assert verdict is not None
    assert verdict.difference[0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"demos__origin": "policy adroit_door_expert"},
            "demonstrations policy adroit_door_expert (theirs human)",
        ),
        ({"look": "fast"}, "look fast (theirs default)"),
        ({"encoder": "MobileNetV2"}, "encoder MobileNetV2 (theirs ResNet)"),
        ({"agent__trajectories": "48"}, "episodes per update 48 (theirs 200)"),
    ],
)
def test_not_comparable_says_what_differs(changed: dict[str, str], text: str) -> None:
    verdict = judge([run(0, [(40_000, 3.0)], **changed)], published("door"))
    assert verdict is not None
    assert verdict.lines()[0] == f"NOT COMPARABLE: {text}"


def test_between_published_points_their_interval_holds_both() -> None:
    curves = published("door")
    verdict = judge([run(0, [(500_000, 1.0)])], curves)
    assert verdict is not None
    ends = [np.mean([*curves.at(point).values()]) for point in (40_000, 1_000_000)]
    assert verdict.theirs.low <= ends[0]
    assert verdict.theirs.high >= ends[1]
    assert verdict.word == "within"
    assert any("not known" in note for note in verdict.notes)


def test_other_tasks_and_settings_are_not_comparable() -> None:
    curves = published("door")
    changes = (
        {"env__task": "hammer"},
        {"env__joint_noise": "0.02"},
        {"env__joint_delay": "2"},
        {"agent__lam_0": "0.0"},
    )
    for changed in changes:
        verdict = judge([run(0, [(40_000, 0.0)], **changed)], curves)
        assert verdict is not None
        assert verdict.differences


def test_runs_that_are_judged_differ_in_seed_alone(tmp_path: Path) -> None:
    for run_id, seed, size in (("a1", 0, 0.05), ("a2", 1, 0.05), ("a3", 1, 0.05), ("b1", 2, 0.02)):
        make_run(tmp_path / "runs", run_id, overrides=[f"DAPG.step_size = {size}"], seed=seed)
    several = [part for run_id in ("a1", "b1") for part in ("--run", run_id)]
    assert "differ in seed alone" in rrl(tmp_path, "reproduce", "fig4", "--task", "door", *several, code=2)


def test_returns_are_judged_too() -> None:
    """The authors' evaluations at the last iteration, mean over seeds: (3148 + 3201 + 3072) / 3."""
    success, returns = load("fig4", "door")
    assert (success.metric, returns.metric) == ("train/success", "eval/return")
    rows = tuple(Row(12_000_000, 0, {"eval/return": value, "eval/episodes": 25.0}) for value in (3100.0,))
    ours = [dataclasses.replace(run(seed, []), rows=rows) for seed in range(3)]
    verdict = judge(ours, returns)
    assert verdict is not None
    assert verdict.theirs.mean == pytest.approx(9421 / 3)
    assert (verdict.word, verdict.difference[0]) == ("within", pytest.approx(3100 - 9421 / 3))
    assert judge([run(0, [(12_000_000, 98.0)])], returns) is None


def scored(tmp_path: Path, run_id: str, top: float, *overrides: str, seed: int = 0) -> Result:
    make_scored(tmp_path, run_id, "dmc_finger_spin_rad", {0: 5.0, 100_000: top}, overrides, seed=seed)
    return results.read(tmp_path / run_id)


def test_scores_of_the_table_are_judged(tmp_path: Path) -> None:
    """RAD's published score at 100k steps is 856 +- 73; a run of another batch is compared, and told."""
    shipped = [ginfile.flatten(ginfile.load("dmc_finger_spin_rad"))]
    text = "\n".join(judge_scores([scored(tmp_path, f"a{s}", 840.0 + s, seed=s) for s in range(3)], shipped))
    assert "as the shipped file" in text
    assert "RAD on finger spin at 100,000 environment steps ours is within the interval of" in text
    assert "841.0 (838.5 to 843.5) against 856.0 (783.0 to 929.0), difference -15.0" in text
    assert "NO VERDICT: RAD on finger spin at 500,000 environment steps" in text
    assert "recalled, not checked" in text
    other = judge_scores([scored(tmp_path, "b", 300.0, "RAD.batch = 64")], shipped)
    assert "NOT COMPARABLE: agent.batch 64 (shipped 128)" in other
    assert any("ours is below the published score: 300.0" in line for line in other)
    assert any("one seed is too few" in line for line in other)


def test_no_verdict_without_samples() -> None:
    assert judge([run(0, [])], published("door")) is None
    assert judge([run(0, [(10_000, 3.0)])], published("door")) is None
    ours = run(0, [(13_000_000, 3.0), (11_000_000, 4.0)])
    assert judge([dataclasses.replace(ours, rows=ours.rows[1:])], published("door")) is not None


def rrl(root: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "rrl.cli", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wrong_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        done = CliRunner().invoke(app, ["reproduce", *words])
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    assert "reproduces no fig5 did you mean fig5_left, fig5_centre or fig5_right?" in refused("fig5", "--task", "door")
    assert "pen, door" in refused("fig4", "--task", "peg")
    assert "2h" in refused("fig4", "--task", "door", "--budget", "long")
    assert "fig5_left has no tasks to choose from" in refused("fig5_left", "--task", "door")
    assert "--seeds means nothing for fig2" in refused("fig2", "--seeds", "1")
    quickest = refused("fig5_left", "--budget", "2h")
    assert "--budget means nothing for fig5_left" in quickest and "--repeats 1 is the quickest" in quickest
    assert "leave it away. It takes --budget, --seeds, --run" in refused("fig12", "--task", "door", "--repeats", "2")
    assert "reproduces no fig5 did you mean fig5_left, fig5_centre or fig5_right?" in refused("fig5", "--list")
    assert "--run goes with one task: say which with --task pen or door" in refused("fig4", "--run", "3f2a")
    assert "fits none of adroit_door_resnet34" in refused("fig4", "--task", "door", "--set", "SAC.batch = 3")
    assert "fits none of eval/distractor_sheet" in refused("fig12", "--task", "door", "--set", "SAC.batch = 3")
    assert "fits none of RRL(ResNet34), " in refused("fig5_left", "--set", "SAC.batch = 3")
    assert not list(tmp_path.iterdir())


def test_runs_that_are_there_belong_to_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is asked of them that only a training could do."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", "d00r")
    make_run(tmp_path / "runs", "4a33e4", "adroit_hammer_state")
    make_scored(tmp_path / "runs", "5133", "dmc_reacher_easy_rad", {100_000: 300.0})

    def refused(*words: str) -> str:
        done = CliRunner().invoke(app, ["reproduce", *words])
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    elsewhere = refused("fig6", "--task", "door", "--run", "d00r", "--run", "4a33e4")
    assert "--run 4a33e4 is of hammer, fig6 is made here of door: leave it away; `rrl report 4a33e4`" in elsewhere
    table = refused("table1", "--task", "cartpole_swingup", "--run", "5133")
    assert "5133 is of reacher easy, table1 is made here of cartpole swingup" in table
    assert "`rrl reproduce table1 --task reacher_easy` takes it" in table
    for option in (("--set", "Foo.bar = 3"), ("--seeds", "1"), ("--budget", "1h"), ("--oracles",)):
        words = f"{option[0]} means nothing beside --run, which takes what is there already"
        assert words in refused("fig4", "--task", "door", "--run", "d00r", *option)
    kept = CliRunner().invoke(app, ["reproduce", "fig4", "--task", "door", "--run", "4a33e4"])
    assert kept.exit_code == 0
    assert [path.name for path in tmp_path.glob("*.html")] == ["fig4_door.html"]


def test_what_there_is_is_told() -> None:
    said = CliRunner().invoke(app, ["reproduce"]).output
    assert said == CliRunner().invoke(app, ["reproduce", "--list"]).output
    for name, figure in FIGURES.items():
        assert f"{name}: {figure.title}\n" in said
    for name in ("fig5_left", "table1"):
        alone = CliRunner().invoke(app, ["reproduce", name, "--list"]).output
        assert alone.startswith(f"{name}: ") and alone in said and alone.count("\n") < 5
    assert "published numbers: authors' logs, RRL(ResNet34)\n" in said
    assert said.count("published numbers: none\n") == len(FIGURES) - 3


def test_figures_and_sweeps_name_the_same_runs() -> None:
    """The shipped sweeps of figures, and what `rrl reproduce` runs for them."""
    sweeps = {
        **{f"fig4_{task}": ["fig4"] for task in FIGURES["fig4"].tasks},
        "fig6_fig7_encoders": ["fig6", "fig7"],
        "fig8_proprioception": ["fig8"],
        "fig10": ["fig10"],
    }
    for sweep, figures in sweeps.items():
        config = ginfile.load(f"sweeps/{sweep}", root="Sweep")
        tasks = {sweep.partition("_")[2]} if sweep.startswith("fig4") else set(FIGURES[figures[0]].tasks)
        ours = {w.of(task).file for name in figures for w in wanted(name) for task in tasks}
        assert ours == set(config.files)  # type: ignore[attr-defined]
    halves = [set(ginfile.load(f"sweeps/fig9_{half}", root="Sweep").files) for half in ("reward", "policy_size")]  # type: ignore[attr-defined]
    assert set.union(*halves) == {w.of(task).file for w in wanted("fig9") for task in FIGURES["fig9"].tasks}


def wanted(name: str) -> tuple[Wanted, ...]:
    figure = FIGURES[name]
    assert isinstance(figure, Training)
    return figure.wanted
