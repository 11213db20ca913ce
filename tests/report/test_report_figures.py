"""Figures alone, for papers: files, what stands on the x axis, panels of several tasks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.report_pages import report_of
from helpers.report_runs import make_run, make_scored
from typer.testing import CliRunner

from rrl import cli
from rrl.registry import UserError
from rrl.report import figures, numbers
from rrl.report.write import write_figures
from rrl.store import results

BC = ("Experiment.agent = @BC()", "Experiment.iterations = 0", "BC.policy_hidden = (32, 32)")


def timed(folder: Path, seconds: float, *, warm_start: float = 0.0) -> None:
    """Let each update of a run take so many seconds, and its warm start."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "iteration" in row["metrics"]:
            row["metrics"]["time/iteration"] = seconds
        elif row["step"] == 0 and warm_start:
            row["metrics"] |= {"time/warm_start": 0.75 * warm_start, "time/evaluate": 0.25 * warm_start}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def untimed(folder: Path) -> None:
    """As a version wrote it that did not time whole updates."""
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace("time/iteration", "time/forgotten"))


# --- files -----------------------------------------------------------------------------------------------


def test_figures_alone_are_files_that_fit_a_column(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "a0", name="<b> & $x$")
    lines: list[str] = []
    folder = tmp_path / "figures"
    write_figures([], folder, lines.append, root=tmp_path / "runs")
    names = ("curves-train-door", "curves-eval-door", "aggregate", "compute")
    assert lines == [str(folder / f"{name}.{ending}") for name in names for ending in ("png", "svg", "pdf")]
    assert {str(path) for path in folder.iterdir()} == set(lines)
    svg = (folder / "curves-eval-door.svg").read_text()
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert {"door", "environment steps", "success (%)", "State · DAPG · 1 seed"} <= set(texts)
    assert set(re.findall(r"font-size: ([\d.]+)px|font: (?:bold )?([\d.]+)px", svg)) <= {("8", ""), ("", "8")}
    assert 'width="237.6pt"' in svg  # 3.3 inches
    pdf = (folder / "curves-eval-door.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, which editors take
    assert re.search(rb"/MediaBox \[ 0 0 237.6 ", pdf)


def test_only_figures_of_rrl_are_replaced_and_that_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "a0")
    folder, lines = tmp_path / "figures", list[str]()
    folder.mkdir()
    own = folder / "compute.pdf"
    own.write_text("a user's own")
    with pytest.raises(UserError, match=r"compute\.pdf exists and is no figure of rrl's"):
        write_figures([], folder, lines.append, root=tmp_path / "runs")
    assert list(folder.iterdir()) == [own] and own.read_text() == "a user's own" and not lines
    own.unlink()
    files: list[dict[str, bytes]] = []
    for _ in range(2):
        write_figures([], folder, lines.append, root=tmp_path / "runs")
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    assert len(lines) == 24 and all(line.endswith(" (replaced)") for line in lines[12:])
    assert not any(line.endswith(" (replaced)") for line in lines[:12])
    with pytest.raises(UserError, match="is no folder"):
        write_figures([], own, lines.append, root=tmp_path / "runs")


def test_nothing_measured_is_told(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "a0", rows=False, status="FAILED", reason="lost")
    with pytest.raises(UserError, match="nothing to draw"):
        write_figures([], tmp_path / "figures", print, root=tmp_path / "runs")
    assert not (tmp_path / "figures").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs", "a0")
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(cli.app, ["report", "--x", "hours"])
    assert refused.exit_code == 2 and "rrl report --only figures --x hours" in refused.output
    done = CliRunner().invoke(cli.app, ["report", "--only", "figures", "--x", "log-steps"])
    assert done.exit_code == 0, done.output
    assert "figures/curves-eval-door-log.pdf" in done.output.splitlines()
    assert not (tmp_path / "report.html").exists()


# --- the x axis ------------------------------------------------------------------------------------------


def test_a_runs_clock_is_its_warm_start_and_its_updates(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a0", updates=3)
    timed(folder, 1800, warm_start=360)
    run = results.read(folder)
    assert run.clock == [360, 2160, 3960, 5760, 5760]  # the final evaluation has no time
    (group,) = report_of(tmp_path).groups
    line = numbers.curve(group, "eval", "hours")
    assert line is not None
    assert line.x == pytest.approx([0.1, 0.6, 1.1, 1.6])
    assert line.mean.tolist() == run.series("eval/success")[1]
    assert len(line.low) == 4  # an interval for each point
    untimed(folder)
    assert results.read(folder).clock is None


def test_seeds_over_hours_are_averaged_as_far_as_the_fastest(tmp_path: Path) -> None:
    timed(make_run(tmp_path, "a0", seed=0, updates=4), 3600)
    timed(make_run(tmp_path, "a1", seed=1, updates=4, tags={"device": "another processor"}), 1800)
    untimed(make_run(tmp_path, "a2", seed=2, updates=9))
    (group,) = report_of(tmp_path).groups
    line = numbers.curve(group, "train", "hours")
    assert line is not None
    assert line.x == [1.0, 1.5, 2.0]
    (_, slow), (_, fast) = line.seeds
    slow = [slow[0], (slow[0] + slow[1]) / 2, slow[1]]  # at 1, 1.5 and 2 hours
    assert line.mean == pytest.approx([(a + b) / 2 for a, b in zip(slow, fast[1:], strict=True)])
    lines: list[str] = []
    write_figures([], tmp_path / "figures", lines.append, x="hours", root=tmp_path)
    assert lines[0] == "not drawn over hours, as their version of rrl did not time updates: a2"
    assert "another processor, 2 threads; x86_64, 2 threads" in lines[1]
    assert "wall-clock hours" in (tmp_path / "figures" / "curves-train-door-hours.svg").read_text()


def test_a_logarithmic_axis_has_no_step_0(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    (group,) = report_of(tmp_path).groups
    line = numbers.curve(group, "eval", "log-steps")
    assert line is not None
    assert line.x == [1000, 2000, 3000, 4000, 5000, 6000]
    other = figures.Published("paper", "door", [0, 4000], [30.0, 90.0], [20.0, 80.0], [40.0, 95.0], "eval")
    figure = figures.curves([group], "eval", [other], x="log-steps")
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlim()[0] > 0
    far = figures.Published("paper", "door", [4000, 10**7], [30.0, 90.0], [20.0, 80.0], [40.0, 95.0], "eval")
    whole, part = (figures.curves([group], "eval", [far], x=x) for x in ("log-steps", "steps"))
    assert whole is not None and part is not None
    assert whole.axes[0].get_xlim()[1] > 10**7 > 100 * part.axes[0].get_xlim()[1]
    assert [line.get_xdata().tolist() for line in axes.get_lines() if line.get_linestyle() == ":"] == [[4000]]  # type: ignore[union-attr]
    make_run(tmp_path / "cloned", "b0", overrides=BC, updates=0)
    assert figures.curves(report_of(tmp_path / "cloned").groups, "eval", x="log-steps") is None
    assert figures.curves(report_of(tmp_path / "cloned").groups, "eval") is not None


# --- several tasks ---------------------------------------------------------------------------------------


def test_several_tasks_are_panels_with_one_legend(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, f"a{seed}", seed=seed)
    make_run(tmp_path, "b0", "adroit_pen_state")
    make_run(tmp_path, "c0", "adroit_pen_mobilenetv2")
    report = report_of(tmp_path)
    other = figures.Published("paper", "pen", [0, 5000], [30.0, 90.0], [20.0, 80.0], [40.0, 95.0])
    returns = replace(other, score="return")  # which is no percentage
    figure = figures.grid(report.tasks, "train", [other, returns])
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["door", "pen"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["success (%)", ""]
    dotted = [[line for line in axes.get_lines() if line.get_linestyle() == ":"] for axes in figure.axes]
    assert [len(lines) for lines in dotted] == [0, 1]
    told = [" ".join(text.get_text().split()) for text in figure.legends[0].texts]
    assert told == ["State · DAPG · 1 to 2 seeds", "MobileNetV2 (imagenet-deepsort) · DAPG · 1 seed", "paper"]
    colours = {line.get_color() for axes in figure.axes for line in axes.get_lines() if line.get_linewidth() == 2}
    assert len(colours) == 2  # a method has one colour on all tasks
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0 and box.y1 < min(axes.get_tightbbox().y0 for axes in figure.axes)  # type: ignore[union-attr]
    assert figures.grid({"door": report.tasks["door"]}, "train") is None


def test_panels_of_different_scores_name_them_all(tmp_path: Path) -> None:
    make_run(tmp_path, "a0")
    make_scored(tmp_path, "b0", "dmc_cartpole_swingup_rad", {0: 20.0, 50_000: 300.0})
    figure = figures.grid(report_of(tmp_path).tasks, "eval")
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["return", "success (%)"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["environment steps"] * 2
