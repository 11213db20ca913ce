"""Gin files that include others, and files found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from rrl import registry
from rrl.config import ginfile, sources
from rrl.config.ginfile import ConfigError, load, loads
from rrl.registry import Component


class Lens(Component):
    kind: ClassVar[str] = "encoder"

    class Config(Component.Config):
        zoom: float = 1.0
        """Magnification."""


class Experiment(Component):
    kind: ClassVar[str] = "experiment"

    class Config(Component.Config):
        seed: int
        """Of all random numbers."""
        name: str = "?"
        """Of the run."""
        lens: Lens.Config | None = None
        """What it looks through."""


def run(seed: int, **fields: Any) -> Experiment.Config:
    return Experiment.Config(seed=seed, **fields)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty, below a registry of two components, without shipped files."""
    monkeypatch.setattr(registry, "_components", {})
    monkeypatch.setattr(registry, "_plugins_loaded", True)
    registry.register(Lens)
    registry.register(Experiment)
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "site" / "rrl" / "config" / "sources.py"))
    work = tmp_path / "work"
    (work / "base").mkdir(parents=True)
    monkeypatch.chdir(work)
    return work


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def only_problem(source: str) -> ginfile.Problem:
    with pytest.raises(ConfigError) as caught:
        load(source)
    (problem,) = caught.value.problems
    return problem


def test_precedence_include_file_override():
    write("base/deep.gin", "Experiment.seed = 1\nExperiment.name = 'deep'\nLens.zoom = 3.0\n")
    write("base/mid.gin", "include 'deep.gin'\nExperiment.name = 'mid'\nunused = 3\n")
    write("top.gin", "include 'base/mid.gin'\nExperiment.seed = 2\n")
    assert load("top.gin") == run(2, name="mid")
    assert load(Path("top.gin"), ["Experiment.seed = 3"]) == run(3, name="mid")
    assert load("top.gin", ["Experiment.lens = @Lens()"]) == run(2, name="mid", lens=Lens.Config(zoom=3.0))


def test_a_later_include_wins_and_a_file_may_be_included_twice():
    write("a.gin", "Experiment.seed = 1\n")
    write("b.gin", "include 'a.gin'\nExperiment.seed = 2\n")
    assert loads("include 'a.gin'\ninclude 'b.gin'\n") == run(2)
    assert loads("include 'b.gin'\ninclude 'a.gin'\n") == run(1)


def test_an_included_file_may_have_an_included_macro_replaced():
    write("base/a.gin", "n = 3\nExperiment.seed = %n\n")
    assert loads("include 'base/a.gin'\n") == run(3)
    assert loads("include 'base/a.gin'\nn = 4\n") == run(4)
    assert loads("include 'base/a.gin'\nn = 4\n", overrides=["n = 5"]) == run(5)


def test_required_is_satisfied_from_above():
    write("base/t.gin", "Experiment.seed = %gin.REQUIRED\n")
    assert loads("include 'base/t.gin'\nExperiment.seed = 6\n") == run(6)
    assert loads("include 'base/t.gin'\n", overrides=["Experiment.seed = 7"]) == run(7)
    write("x.gin", "include 'base/t.gin'\n")
    problem = only_problem("x.gin")
    assert (problem.file, problem.line) == ("base/t.gin", 1) and "must be given" in problem.message


def test_include_below_bindings():
    write("a.gin", "Experiment.name = 'a'\n")
    write("x.gin", "Experiment.seed = 1\n\ninclude 'a.gin'\n")
    problem = only_problem("x.gin")
    assert (problem.line, problem.message) == (3, "include comes after bindings")
    assert problem.hint.startswith("move it above x.gin:1")


def test_problems_of_included_files_come_after_those_of_the_file():
    write("base/a.gin", "# base\nExperiment.seed = '18'\nLens.zom = 3\nLens.zoom = 'idle'\n")
    write("x.gin", "include 'base/a.gin'\nfoo = 3\n")
    with pytest.raises(ConfigError) as caught:
        load("x.gin")
    assert [(p.file, p.line, p.text) for p in caught.value.problems] == [
        ("x.gin", 2, "foo = 3"),
        ("base/a.gin", 2, "Experiment.seed = '18'"),
        ("base/a.gin", 3, "Lens.zom = 3"),
    ]


def test_what_is_missing_is_told_at_the_files_first_line():
    write("base/a.gin", "Lens.zoom = 2.0\n")
    write("x.gin", "# a run\ninclude 'base/a.gin'\n")
    problem = only_problem("x.gin")
    assert (str(problem.file), problem.line, problem.message) == ("x.gin", 1, "Experiment needs seed")


def test_several_files_are_laid_over_each_other():
    write("a.gin", "Experiment.seed = 1\nExperiment.name = 'a'\n")
    write("sub/b.gin", "include 'c.gin'\nExperiment.name = 'b'\n")
    write("sub/c.gin", "Experiment.seed = 2\nExperiment.name = 'c'\n")
    assert load(["a.gin", "sub/b.gin"]) == run(2, name="b")
    assert load([Path("sub/b.gin"), "a.gin"], ["Experiment.seed = 3"]) == run(3, name="a")
    assert load(["a.gin", "a.gin"]) == run(1, name="a")
    write("lens.gin", "Lens.zoom = 2.0\n")
    sources = ["a.gin", "lens.gin"]
    assert load(sources, ["Experiment.lens = @Lens()"]) == run(1, name="a", lens=Lens.Config(zoom=2.0))
    with pytest.raises(ConfigError, match=r"lens\.gin:1: nothing uses Lens\.zoom"):
        load(sources)  # a user's own lines are there to be used, in whatever place the file stands
    write("d.gin", "Experiment.name = 'd'\n")
    with pytest.raises(ConfigError) as caught:
        load(["d.gin", "d.gin"])
    assert str(caught.value).startswith("d.gin + d.gin: Experiment needs seed\n  add `Experiment.seed = ...`")
    write("e.gin", "Experiment.seed = 1\nExperiment.seed = 2\n")
    with pytest.raises(ConfigError, match=r"e\.gin:2: Experiment\.seed is bound twice; first at e\.gin:1"):
        load(["a.gin", "e.gin"])


def test_a_circle_of_includes_is_named():
    write("sub/b.gin", "include '../a.gin'\n")
    write("a.gin", "include 'sub/b.gin'\nExperiment.seed = 1\n")
    problem = only_problem("a.gin")
    assert problem.message == "include goes round in a circle: a.gin -> sub/b.gin -> a.gin"
    assert (problem.file, problem.line) == ("sub/b.gin", 1)
    write("self.gin", "include 'self.gin'\n")
    assert only_problem("self.gin").message.endswith("self.gin -> self.gin")


def test_a_missing_include_is_the_only_problem_and_suggests():
    write("base/adroit.gin", "Experiment.seed = 1\n")
    write("x.gin", "include 'base/adrot.gin'\nLens.zoom = 1.0\n")
    problem = only_problem("x.gin")
    assert problem.line == 1 and problem.hint == "did you mean `include 'base/adroit.gin'`?"
    assert problem.message.startswith("cannot read base/adrot.gin: ")
    write("y.gin", "include 'base'\n")
    assert only_problem("y.gin").message == "cannot read base: Is a directory"


def test_encodings():
    Path("a.gin").write_bytes(b"Experiment.seed = 1 # \xff\n")
    write("x.gin", "include 'a.gin'\n")
    problem = only_problem("x.gin")
    assert problem.line == 1 and "a.gin is not UTF-8 text" in problem.message
    Path("b.gin").write_bytes(b"\xef\xbb\xbfExperiment.seed = 1")  # a byte-order mark is no mistake
    assert load("b.gin") == run(1)


@pytest.fixture(params=["site/rrl/_gin", "site/gin"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Shipped files, in the wheel's folder and in the checkout's."""
    folder = tmp_path / request.param
    (tmp_path / "site" / "rrl" / "config").mkdir(parents=True)
    write(str(folder / "env" / "adroit.gin"), "Experiment.seed = 1\n")
    write(str(folder / "adroit_pen.gin"), "include 'env/adroit.gin'\nExperiment.name = 'pen'\n")
    return folder


def test_shipped_files_are_found_by_name(shipped: Path):
    assert ginfile.find("adroit_pen") == ginfile.find("adroit_pen.gin") == shipped / "adroit_pen.gin"
    assert ginfile.find("env/adroit") == shipped / "env" / "adroit.gin"
    assert sorted(ginfile.shipped()) == ["adroit_pen", "env/adroit"]
    assert load("adroit_pen") == run(1, name="pen")
    write("adroit_pen", "Experiment.seed = 9\n")
    assert load("adroit_pen") == run(9)  # an existing path goes before a shipped name


def test_own_files_may_include_shipped_ones(shipped: Path):
    write("mine.gin", "include 'adroit_pen.gin'\nExperiment.seed = 4\n")
    assert load("mine.gin") == run(4, name="pen")
    write("env/adroit.gin", "Experiment.seed = 5\n")
    assert loads("include 'env/adroit.gin'\n") == run(5)  # relative to the including file first


def test_unknown_files_get_suggestions(shipped: Path):
    problem = only_problem("adriot_pen")
    assert (problem.file, problem.line) == ("adriot_pen", 0) and problem.hint == "did you mean adroit_pen?"
    write("mine.gin", "")
    assert only_problem("mien.gin").hint == "did you mean mine.gin?"
    for typed in ("base/adroti.gin", "evn/adroit"):
        write("mine.gin", f"include '{typed}'\n")
        assert only_problem("mine.gin").hint == "did you mean `include 'env/adroit.gin'`?"
    write("mine.gin", "include “env/adroit.gin”\n")
    assert "did you mean `include 'env/adroit.gin'`?" in only_problem("mine.gin").hint
    assert only_problem("zzzz").hint == "give a path, or a name that `rrl list files` shows"
