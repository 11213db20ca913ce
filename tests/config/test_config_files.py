"""Files that configs name: where gin files look for them, and how they are written down."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rrl.config import ginfile
from rrl.config.ginfile import ConfigError
from rrl.demos.replay import DemoSet
from rrl.encoders.resnet import ResNet
from rrl.registry import UserError, get
from rrl.store import results
from rrl.sweeps.jobs import Job
from rrl.sweeps.plan import request

HERE = "mine.npz"


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def demos(*sources: str | Path, sets: tuple[str, ...] = ()) -> str | None:
    """What DemoSet.source is, in these gin files."""
    config = ginfile.load(list(sources), sets, root="DemoSet")
    assert isinstance(config, DemoSet.Config)
    return config.source


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a set of demonstrations, and another folder as the current one."""
    write(tmp_path / "project" / "demos" / HERE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path / "project"


@pytest.mark.parametrize("text", ["../demos/mine.npz", "../demos/mine", "./../demos//mine.npz"])
def test_a_file_is_looked_for_beside_the_gin_file(project: Path, text: str) -> None:
    gin = write(project / "gin" / "a.gin", f"DemoSet.source = '{text}'\n")
    assert demos(gin) == str(project / "demos" / HERE)
    included = write(Path("b.gin"), f"include '{gin}'\n")
    assert demos(included) == str(project / "demos" / HERE)


def test_a_macro_is_relative_to_the_file_that_defines_it(project: Path) -> None:
    base = write(project / "demos" / "base.gin", f"set = '{HERE}'\nDemoSet.source = %set\n")
    over = write(Path("over.gin"), f"include '{base}'\n")
    assert demos(over) == str(project / "demos" / HERE)
    write(Path(HERE))
    assert demos(over) == str(project / "demos" / HERE)
    write(over, f"include '{base}'\nset = '{HERE}'\n")
    assert demos(over) == str(Path(HERE).absolute())


def test_an_override_and_older_files_are_relative_to_the_current_folder(project: Path) -> None:
    write(Path(HERE))
    gin = write(project / "gin" / "a.gin", f"DemoSet.source = '{HERE}'\n")
    assert demos(gin) == str(Path(HERE).absolute())
    assert demos(write(Path("b.gin")), sets=(f"DemoSet.source = '{HERE}'",)) == str(Path(HERE).absolute())


def test_a_home_folder_may_be_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    assert demos(write(Path("a.gin"), "DemoSet.source = '~/demos/mine.npz'\n")) == str(project / "demos" / HERE)
    with pytest.raises(ConfigError, match="no home folder ~nobody-here"):
        demos(write(Path("a.gin"), "DemoSet.source = '~nobody-here/mine.npz'\n"))


def test_a_linked_gin_file_looks_beside_the_link_and_then_beside_its_target(project: Path) -> None:
    gin = write(project / "demos" / "a.gin", f"DemoSet.source = '{HERE}'\n")
    Path("link.gin").symlink_to(gin)
    assert demos("link.gin") == str(project / "demos" / HERE)
    write(Path(HERE))
    assert demos("link.gin") == str(Path(HERE).absolute())
    Path("folder").symlink_to(project / "demos")  # of a linked folder, `..` is the target's
    write(project / "demos" / "b.gin", "DemoSet.source = '../demos/mine.npz'\n")
    assert demos("folder/b.gin") == str(project / "demos" / HERE)


def test_a_name_goes_before_a_file_of_that_name(project: Path) -> None:
    write(Path("imagenet"))
    write(Path("adroit_door_paper.npz"))
    text = "DemoSet.source = 'adroit_door_paper'\n"
    assert demos(write(Path("a.gin"), text)) == "adroit_door_paper"
    assert ginfile.loads("ResNet.weights = 'imagenet'\n", root="ResNet") == ResNet.Config()


def test_what_is_missing_is_told_with_its_place_and_where_it_was_looked_for(project: Path) -> None:
    gin = write(project / "gin" / "a.gin", "\nDemoSet.source = 'nowhere'\n")
    with pytest.raises(ConfigError) as caught:
        demos(gin)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(gin), 2)
    for place in (project / "gin" / "nowhere.npz", Path("nowhere.npz").absolute()):
        assert f"there is no file {place}" in problem.message
    assert "adroit_door_paper" in problem.hint
    with pytest.raises(ConfigError, match="demos is a folder, where a file is needed"):
        ginfile.loads(f"ResNet.weights = '{project}/demos'\n", root="ResNet")


def test_a_subclass_with_a_default_of_its_own_keeps_the_mark() -> None:
    class Plugin(get("ResNet")):  # type: ignore[misc]
        class Config(ResNet.Config):
            weights: str | None = None

    assert Plugin.Config.input_file("weights") is ResNet.Config.input_file("weights") is not None
    assert Plugin.Config.input_file("depth") is None


# ---- written down


def test_what_is_written_holds_from_any_folder_and_after_a_move(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = DemoSet.Config(source=str(write(Path("outside.npz")).absolute()))
    folder = project / "runs" / "a0"
    folder.mkdir(parents=True)
    config = DemoSet.Config(source=str(project / "demos" / HERE))
    text = ginfile.dumps(config, folder, results.project(folder))
    assert "DemoSet.source = '../../demos/mine.npz'" in text
    write(folder / "config.gin", text)
    assert demos(folder / "config.gin") == config.source
    moved = shutil.move(project, project.with_name("moved"))
    monkeypatch.chdir("/")
    assert demos(moved / "runs" / "a0" / "config.gin") == str(moved / "demos" / HERE)
    assert ginfile.dumps(far, folder, project) == ginfile.dumps(far)
    named = DemoSet.Config(source="adroit_door_paper")
    assert "'adroit_door_paper'" in ginfile.dumps(named, folder, project)


def test_a_linked_folder_of_runs_gets_absolute_paths(project: Path) -> None:
    scratch = project.parent / "scratch"
    (scratch / "a0").mkdir(parents=True)
    (project / "runs").symlink_to(scratch)
    config = DemoSet.Config(source=str(project / "demos" / HERE))
    for folder in (project / "runs" / "a0", scratch / "a0"):
        write(folder / "config.gin", ginfile.dumps(config, folder, results.project(folder)))
        assert demos(folder / "config.gin") == config.source
    assert str(project) in ginfile.dumps(config, project / "runs" / "a0", project)
    assert ginfile.flatten(config, results.project(project / "runs" / "a0"))["source"] == "demos/mine.npz"


def test_parameters_are_the_same_on_every_machine(project: Path) -> None:
    other = shutil.copytree(project, project.with_name("other"))
    inside = [DemoSet.Config(source=str(top / "demos" / HERE)) for top in (project, other)]
    assert {ginfile.flatten(c, top)["source"] for c, top in zip(inside, (project, other), strict=True)} == {
        "demos/mine.npz"
    }
    outside = [ginfile.flatten(config)["source"] for config in inside]
    assert len(set(outside)) == 1
    assert outside[0].startswith("mine.npz (sha256 e3b0c44298fc")  # of an empty file
    write(other / "demos" / HERE, "other content")
    assert ginfile.flatten(inside[1])["source"] != outside[0]
    assert inside[0].label() == HERE


def test_a_sweep_knows_its_runs_after_a_move(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "include 'adroit_door_state'\nDemoSet.source = '../demos/mine.npz'\n"
    write(project / "gin" / "a.gin", text)
    fingerprints = set()
    for top in (project, project.with_name("moved")):
        if top != project:
            shutil.move(project, top)
        monkeypatch.chdir(top)
        fingerprints.add(Job("a", "a", {}, ginfile.load("gin/a.gin")).fingerprint)  # type: ignore[arg-type]
    assert len(fingerprints) == 1


def test_files_that_a_sweeps_own_lines_name_are_looked_for_beside_it(project: Path) -> None:
    write(project / "demos" / "run.gin", "include 'adroit_door_state'\n")
    sweep = write(
        project / "demos" / "sweep.gin",
        "Sweep.files = ('run.gin',)\nSweep.set = (\"DemoSet.source = 'mine.npz'\", 'DAPG.lam_0 = 0.1')\n"
        "Sweep.grid = (\"DemoSet.source = ('mine', 'adroit_door_paper', 'gone')\",)\n",
    )
    _, config = request([str(sweep)])
    assert config.files == (str(project / "demos" / "run.gin"),)
    assert config.set == (f"DemoSet.source = '{project}/demos/mine.npz'", "DAPG.lam_0 = 0.1")
    assert config.grid == (f"DemoSet.source = ('{project}/demos/mine.npz', 'adroit_door_paper', 'gone')",)


# ---- gin files themselves


@pytest.fixture
def linked(project: Path) -> Path:
    """A run file that is a link, and a base that stands beside its target."""
    write(project / "gin" / "base.gin", "DemoSet.episodes = 1\n")
    write(project / "gin" / "a.gin", "include 'base.gin'\n")
    Path("a.gin").symlink_to(project / "gin" / "a.gin")
    return project


def test_a_linked_file_includes_what_stands_beside_the_link_or_else_beside_its_target(linked: Path) -> None:
    config = ginfile.load("a.gin", root="DemoSet")
    assert config == DemoSet.Config(episodes=1)
    write(Path("base.gin"), "DemoSet.episodes = 2\n")
    assert ginfile.load("a.gin", root="DemoSet") == DemoSet.Config(episodes=2)
    write(Path("base.gin"), "include 'a.gin'\n")
    with pytest.raises(ConfigError, match=r"a circle: a\.gin -> base\.gin -> a\.gin"):
        ginfile.load("a.gin", root="DemoSet")


def test_a_pipe_is_read_once_and_works(project: Path) -> None:
    write(Path("base.gin"), "DemoSet.episodes = 3\n")
    reading, writing = os.pipe()
    os.write(writing, f"include 'base.gin'\nDemoSet.source = '{project}/demos/mine'\n".encode())
    os.close(writing)
    source = f"/dev/fd/{reading}"
    assert not ginfile.binds(source, "Sweep")
    assert ginfile.load(source, root="DemoSet") == DemoSet.Config(source=str(project / "demos" / HERE), episodes=3)
    assert demos(source) is not None  # again, though the pipe is empty by now
    os.close(reading)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "x.gin is a folder, where a file is needed"),
        (lambda path: path.symlink_to("gone"), "x.gin is a link to gone, which is not there"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "x.gin is not UTF-8 text"),
        (lambda path: path.write_text(""), "x.gin:1: Experiment needs env"),
        (lambda path: write(path / "y.gin"), "it holds x.gin/y.gin"),
    ],
)
def test_what_is_no_gin_file_is_told_as_what_it_is(project: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(Path("x.gin"))
    with pytest.raises(UserError) as caught:
        ginfile.load("x.gin")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "x.gin/y.gin", ""])
def test_what_can_be_no_path_is_no_such_file(project: Path, name: str) -> None:
    write(Path("x.gin"))
    with pytest.raises(ConfigError):
        ginfile.load(name)


def test_a_folder_hides_no_shipped_file(project: Path) -> None:
    Path("adroit_door_state").mkdir()
    assert ginfile.load("adroit_door_state") == ginfile.load("adroit_door_state.gin")
