"""Planning a sweep: grids, files that entries fit or don't, mistakes told all at once, names, searches."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile
from rrl.config.ginfile import ConfigError
from rrl.encoders import weights
from rrl.registry import UserError
from rrl.score import RETURN, Score, success
from rrl.sweeps import backends
from rrl.sweeps.engine import Engine
from rrl.sweeps.jobs import Entry
from rrl.sweeps.plan import Plan, _check_metric, plan, request
from rrl.sweeps.space import Range, axis, draw, product
from rrl.sweeps.state import SweepFolder

STATE = "adroit_door_state"
SUCCESS, LIFTED = success("success", 10), success("lifted", 0)


def planned(*files: str, **options: object) -> Plan:
    return plan(*request(files, **options))  # type: ignore[arg-type]


def names(*files: str, **options: object) -> list[str]:
    return [job.name for job in planned(*files, **options).jobs]


# --- grids ------------------------------------------------------------------------------------------


def test_values_of_any_kind_multiply() -> None:
    axes = [axis("DAPG.gamma = (0.9, 1)"), axis("DAPG.policy_hidden = ((64, 64), (32,))")]
    assert list(product(axes)) == [
        {"DAPG.gamma": g, "DAPG.policy_hidden": h} for g in (0.9, 1) for h in ((64, 64), (32,))
    ]


def test_an_axis_says_the_statement_that_gin_reads() -> None:
    actions = axis("final/SuccessRate.actions = ('mean', 'both')")
    assert actions.override(actions.values[1]) == "final/SuccessRate.actions = 'both'"  # type: ignore[index]
    encoders = axis("Experiment.encoder = (@ResNet(), @State())")
    assert encoders.override(encoders.values[1]) == "Experiment.encoder = @State()"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DAPG.gamma = 0.9", "lists the values"),
        ("DAPG.gamma = ()", "lists the values"),
        ("DAPG.gamma = (0.9, 0.9)", "twice"),
        ("gamma = (0.9, 1)", "binds one field"),
        ("DAPG.gamma = (0.9,", "never closed"),
        ("DAPG.gamma = '1 .. 0.5'", "from a smaller to a larger"),
        ("DAPG.step_size = '0 .. 1 log'", "above 0"),
    ],
)
def test_what_is_no_axis_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        axis(text)


def test_a_range_needs_a_search() -> None:
    with pytest.raises(ConfigError, match="--search"):
        planned(STATE, grid=["DAPG.step_size = '0.01 .. 0.1 log'"])


def test_ranges_know_whole_numbers_and_logarithms() -> None:
    assert axis("DAPG.trajectories = '1 .. 1_000 log'").values == Range(1, 1000, True, True)
    assert axis("DAPG.gamma = '.9 .. 1e0'").values == Range(0.9, 1.0, False, False)


def test_random_points_lie_in_their_ranges() -> None:
    axes = [axis("A.x = '1e-3 .. 1e-1 log'"), axis("A.n = '2 .. 5'"), axis("A.z = ('a', 'b')")]
    rng = np.random.default_rng(0)
    points = [draw(axes, rng) for _ in range(2000)]
    x = np.array([p["A.x"] for p in points])
    assert x.min() >= 1e-3
    assert x.max() <= 1e-1
    # Log-uniform: half of the points lie below the geometric mean; five standard errors.
    assert abs((x < 1e-2).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
    counts = np.bincount([p["A.n"] for p in points], minlength=6)[2:]
    assert (np.abs(counts - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()
    assert {p["A.z"] for p in points} == {"a", "b"}


# --- files, seeds and fits -------------------------------------------------------------------------


def test_files_times_grid_times_seeds() -> None:
    made = names(STATE, "adroit_pen_state", seeds=[0, 3], grid=["DAPG.step_size = (0.02, 0.05)"])
    assert made == [
        f"adroit_{task}_state-step_size={size}-seed{seed}"
        for task in ("door", "pen")
        for size in ("0.02", "0.05")
        for seed in (0, 3)
    ]


def test_jobs_hold_what_the_grid_says() -> None:
    jobs = planned(STATE, seeds=[7], grid=["DAPG.policy_hidden = ((64, 64), (32,))"]).jobs
    assert [job.config.agent.policy_hidden for job in jobs] == [(64, 64), (32,)]  # type: ignore[attr-defined]
    assert {job.config.seed for job in jobs} == {7}
    assert len({job.fingerprint for job in jobs}) == 2


def test_files_that_an_entry_does_not_fit_run_once_and_are_listed() -> None:
    made = planned(STATE, "ablations/door_npg_state", grid=["DAPG.lam_0 = (0.0, 0.01)"])
    assert [job.name for job in made.jobs] == [
        "adroit_door_state-lam_0=0-seed0",
        "adroit_door_state-lam_0=0.01-seed0",
        "door_npg_state-seed0",
    ]
    assert made.notes == ["DAPG.lam_0 does not fit ablations/door_npg_state: it runs without it"]


def test_points_that_idle_an_entry_run_once() -> None:
    grid = ["Experiment.encoder = (@ResNet(), @MobileNetV2())", "ResNet.depth = (18, 34)"]
    made = planned("adroit_door_mobilenetv2", grid=grid, overrides=["ResNet.weights = None"]).jobs
    assert [job.name.split("-", 1)[1] for job in made] == [
        "encoder=ResNet-depth=18-seed0",
        "encoder=ResNet-depth=34-seed0",
        "encoder=MobileNetV2-seed0",
    ]


def test_an_entry_that_fits_no_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"ResNet\.depth fits none of the files") as caught:
        planned(STATE, grid=["ResNet.depth = (18, 34)"])
    assert len(caught.value.problems) == 1


def test_an_override_may_fit_some_files_only() -> None:
    made = planned(STATE, "ablations/door_npg_state", overrides=["DAPG.trajectories = 5"])
    agents = [job.config.agent.trajectories for job in made.jobs]  # type: ignore[attr-defined]
    assert agents == [5, 200]
    with pytest.raises(ConfigError, match="fits none"):
        planned(STATE, overrides=["ResNet.depth = 18"])


def test_mistakes_of_all_files_are_told_at_once(tmp_path) -> None:
    for name, line in (("a", "DAPG.gama = 1.0"), ("b", "DAPG.gamma = 'x'")):
        (tmp_path / f"{name}.gin").write_text(f"include 'adroit_door_state.gin'\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        planned(str(tmp_path), STATE, seeds=[0, 1, 2], grid=["DAPG.lam_0 = (0.5, 'x')"])
    texts = [str(problem) for problem in caught.value.problems]
    assert len(texts) == 3, texts
    assert any("a.gin:2" in text and "gama" in text for text in texts)
    assert any("b.gin:2" in text and "DAPG.gamma" in text for text in texts)
    assert any("--grid \"DAPG.lam_0 = (0.5, 'x')\"" in text and "got 'x'" in text for text in texts)


def test_equal_runs_are_done_once() -> None:
    made = planned(STATE, f"{ginfile.find(STATE)}")
    assert len(made.jobs) == 1
    assert "same runs" in made.notes[0]


def shown(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `rrl sweep`, on one line."""
    done = CliRunner().invoke(cli.app, ["sweep", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_missing_parts_show_before_anything_starts(tmp_path, monkeypatch) -> None:
    """One problem with the runs that share it, whatever else they lack; a dry run shows the plan as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "installed", lambda source, word: None)
    monkeypatch.setattr(weights, "download", unreachable)
    files = ("adroit_door_resnet34", "adroit_pen_resnet34", "ablations/door_resnet50")
    lacking = ("--set", "DemoSet.episodes = 99", "--seeds", "1,2")
    code, output = shown(*files, *lacking)
    assert code == 2 and "Traceback" not in output and not list(tmp_path.iterdir())
    for told, runs in (
        ("weights of resnet34", "4 of 6 runs can't start: adroit_door_resnet34, adroit_pen_resnet34 "),
        ("weights of resnet50", "2 of 6 runs can't start: ablations/door_resnet50"),
    ):
        assert output.count(told) == 1 and output.count(runs) == 1, output
    assert "updates" not in output
    code, planned_too = shown(*files, *lacking, "--dry-run")
    assert code == 2 and planned_too.endswith(output[output.index("error:") :])
    assert planned_too.count(" missing ") == 6 and "without the 6 that lack something" in planned_too


def unreachable(source: Any, folder: Path) -> Path:
    raise OSError("no answer")


def test_a_download_is_tried_once(monkeypatch) -> None:
    """Of weights that many runs need: each try may wait for an answer."""
    tries: list[Any] = []

    def refused(source: Any, folder: Path) -> Path:
        tries.append(source.name)
        raise OSError(f"try {len(tries)}")

    monkeypatch.setattr(weights, "installed", lambda source, word: None)
    monkeypatch.setattr(weights, "download", refused)
    made = planned("adroit_door_resnet34", "adroit_pen_resnet34", "ablations/door_dense")
    assert tries == ["resnet34"]
    assert [len(jobs) for jobs in made.missing.values()] == [3]
    with pytest.raises(UserError, match="3 of 3 runs"):
        made.refuse()


def test_a_reason_that_failed_runs_share_is_told_once() -> None:
    said: list[str] = []
    engine = object.__new__(Engine)
    engine.sweep = SimpleNamespace(log=lambda job: f"{job.name}.log")  # type: ignore[assignment]
    engine.table = SimpleNamespace(line=said.append)  # type: ignore[assignment]
    states = {"a": ("failed", "no disk"), "b": ("finished", ""), "c": ("failed", "no disk"), "d": ("failed", "killed")}
    engine.entries = {
        name: Entry(SimpleNamespace(name=name), state, reason)  # type: ignore[arg-type]
        for name, (state, reason) in states.items()
    }
    engine.tell_failures()
    assert said == ["FAILED a, c: no disk\n  log: a.log\n  log: c.log", "FAILED d: killed\n  log: d.log"]


def test_a_mistake_that_files_share_is_told_once(tmp_path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.gin").write_text("include 'adroit_door_state.gin'\nDAPG.gama = 1.0\n")
    with pytest.raises(ConfigError) as caught:
        planned(str(tmp_path))
    assert len(caught.value.problems) == 3
    assert str(caught.value).count("has no field gama") == 1
    assert ", ".join(f"{tmp_path / name}.gin:2" for name in "abc") + ": DAPG has" in str(caught.value)


def test_folders_by_path_or_shipped_name(tmp_path) -> None:
    (tmp_path / "one.gin").write_text("include 'adroit_door_state.gin'\n")
    (tmp_path / "notes.txt").write_text("not a run")
    assert names(str(tmp_path)) == ["one-seed0"]
    _, config = request(["ablations"])
    assert "ablations/door_npg_state" in config.files
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no gin file"):
        request([str(empty)])


# --- sweep files -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("cartpole_rad")
@pytest.mark.parametrize("name", [n for n in ginfile.shipped() if n.startswith("sweeps/")])
def test_shipped_sweeps_can_be_planned(name: str) -> None:
    """With an untrained ResNet where its weights are not at hand: this is about the files."""
    _, config = request([name])
    if "fig" in name or "rrl_sac" in name:
        _, config = request([name], overrides=["ResNet.weights = None"])
    made = plan(name, config)
    assert len(made.jobs) >= len(config.files)
    assert {job.source for job in made.jobs} == set(config.files), made.notes


def test_a_sweep_file_names_files_beside_it_and_options_go_before(tmp_path) -> None:
    (tmp_path / "one.gin").write_text("include 'adroit_door_state.gin'\nDAPG.gamma = 0.5\n")
    (tmp_path / "sweep.gin").write_text(
        "Sweep.files = ('one.gin', 'adroit_pen_state')\n"
        "Sweep.seeds = (1, 2)\n"
        "Sweep.set = ('DAPG.trajectories = 5', 'DAPG.lam_0 = 0.5')\n"
    )
    jobs = planned(str(tmp_path / "sweep.gin"), seeds=[4], overrides=["DAPG.lam_0 = 0.25"]).jobs
    assert [job.name for job in jobs] == ["one-seed4", "adroit_pen_state-seed4"]
    agents = [job.config.agent for job in jobs]
    assert [(a.trajectories, a.lam_0) for a in agents] == [(5, 0.25)] * 2  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="start it alone"):
        request([str(tmp_path / "sweep.gin"), STATE])


def test_a_sweep_is_checked_but_not_run_as_a_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["run", "sweeps/offline_door"])
    assert done.exit_code == 2
    assert "rrl sweep sweeps/offline_door" in done.output
    checked = CliRunner().invoke(cli.app, ["check", "sweeps/offline_door"])
    assert checked.exit_code == 0
    assert ginfile.loads(checked.output, root="Sweep") == ginfile.load("sweeps/offline_door", root="Sweep")


def test_searches_say_what_they_need() -> None:
    with pytest.raises(UserError, match="--trials"):
        request([STATE], search="random", grid=["DAPG.gamma = (0.9, 1.0)"])
    with pytest.raises(UserError, match="--grid"):
        request([STATE], search="random", trials=3)


def test_random_search_draws_the_same_points_again() -> None:
    options = {"search": "random", "trials": 4, "grid": ["DAPG.step_size = '0.01 .. 0.1 log'"]}
    first, again = (planned(STATE, **options).jobs for _ in range(2))
    assert [job.fingerprint for job in first] == [job.fingerprint for job in again]
    assert len(first) == 4


@pytest.mark.parametrize(
    ("metric", "scores", "told"),
    [
        ("summary/last5_success", [RETURN], r"has no success test.*--metric summary/last5_return "),
        ("eval/success_sampled", [RETURN], r"has no success test.*--metric eval/return "),
        ("summary/best_return", [SUCCESS], r"counts successes.*--metric summary/best_success "),
        ("summary/last5_success", [SUCCESS, RETURN], r"^1 has no success test.*by themselves"),
        ("summary/last5_success", [LIFTED], r"counts successes.*--metric summary/last5_lifted "),
        ("summary/last5_success", [SUCCESS, SUCCESS], ""),
        ("summary/auc_return", [RETURN], ""),
        ("summary/last5_lifted", [LIFTED], ""),
        ("eval/return", [SUCCESS, RETURN, LIFTED], ""),
        ("train/success", [SUCCESS], ""),
        ("eval/of_my_own", [RETURN], ""),
    ],
)
def test_a_search_proposes_what_its_runs_log(metric: str, scores: list[Score], told: str) -> None:
    jobs: Any = [SimpleNamespace(source=str(number), score=score) for number, score in enumerate(scores)]
    with pytest.raises(UserError, match=told) if told else nullcontext():
        _check_metric(metric, jobs)


# --- backends and the sweep's folder ----------------------------------------------------------------


def test_backends_are_found_in_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--backend takes local, ray, slurm; got moon"):
        backends.find("moon", [])
    with pytest.raises(UserError, match="--slurm goes with --backend slurm"):
        backends.find("local", ["a=1"])
    calls: list[tuple[Any, ...]] = []
    moon: Any = backends.Kind(lambda *call: calls.append(call), settings=True)  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(backends.BACKENDS, "moon", moon)
    kind, settings = backends.find("moon", ["a=1", "b=c=d"])
    kind.make(None, 3, settings, tmp_path)
    assert calls == [(None, 3, {"a": "1", "b": "c=d"}, tmp_path)]
    with pytest.raises(UserError, match="NAME=VALUE"):
        backends.find("moon", ["a"])
    monkeypatch.setitem(backends.BACKENDS, "mars", backends.Kind(moon.make, package="rrl_no_such_package"))
    with pytest.raises(UserError, match="rrl_no_such_package is not installed"):
        backends.find("mars", [])
    assert backends.find("local", [])[0].make(8, 3, {}, tmp_path).jobs == 3


def test_a_sweeps_folder_is_locked_while_it_is_open(tmp_path: Path) -> None:
    facts = {"name": "grid", "started": "2026-01-01", "uri": "sqlite:///mlflow.db", "run_id": "a", "jobs": []}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    tracker: Any = None
    with SweepFolder(tmp_path, tracker) as folder:
        assert folder.run_id == "a"
        with pytest.raises(UserError, match="another process is working on the sweep"):
            SweepFolder(tmp_path, tracker)
    with SweepFolder(tmp_path, tracker) as folder:
        folder.record([], search="grid")
    assert json.loads((tmp_path / "sweep.json").read_text()) == facts | {"search": "grid"}
