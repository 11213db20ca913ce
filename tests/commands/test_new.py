"""`rrl new`: packages that install, pass their own tests and do what their commands say."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.plugins import found_in
from PIL import Image
from typer.testing import CliRunner

from rrl import cli
from rrl.commands import new
from rrl.registry import UserError

NAMES = {"encoder": "TinyNet", "agent": "TinyLearner", "environment": "TinyTask", "evaluator": "TinyHTTPMeasure"}
MODULES = ("tiny_net", "tiny_learner", "tiny_task", "tiny_http_measure")


def typed(*words):
    """What a command prints."""
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """(a folder with a package of each kind, what was said of each kind)"""
    into = tmp_path_factory.mktemp("packages")
    return into, {kind: typed("new", kind, name, "--into", str(into)) for kind, name in NAMES.items()}


def test_they_pass_their_own_tests(packages):
    into, _ = packages
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(into / m for m in MODULES)]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout


def test_installed_they_do_what_is_said(packages, tmp_path, monkeypatch):
    into, said = packages
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--target", tmp_path / "site", *(into / m for m in MODULES)], check=True, timeout=300)
    found_in(monkeypatch, tmp_path / "site", *MODULES)
    for kind, module in zip(NAMES, MODULES, strict=True):
        folder, *lines = said[kind].split("next:\n")[1].splitlines()
        assert folder == f"  cd {into / module}"
        monkeypatch.chdir(into / module)
        for line in lines:
            if line.startswith(("  rrl describe", "  rrl check")):
                assert NAMES[kind] in typed(*shlex.split(line)[1:])
            if line.startswith("  rrl inspect"):
                assert "an episode of random actions" in typed(*shlex.split(line)[1:])
    assert Image.open(into / "tiny_task" / "first.png").size == (224, 224)
    monkeypatch.chdir(into / "tiny_http_measure")
    assert "TinyHTTPMeasure.episodes = 5" in typed("check", "adroit_door_state", "tiny_http_measure.gin")


def test_every_name_is_filled_in(packages):
    into, said = packages
    for kind, module in zip(NAMES, MODULES, strict=True):
        for name in ("pyproject.toml", f"{module}.py", f"test_{module}.py", f"{module}.gin"):
            text = (into / module / name).read_text()
            assert name in said[kind]
            assert module in text or NAMES[kind] in text
            assert not any(f"{my}{kind}" in text.lower() for my in ("my", "my_", "my-"))


@pytest.mark.parametrize(
    ("kind", "name", "match"),
    [
        ("encoders", "TinyNet", r"an evaluator; got encoders; did you mean encoder\?"),
        ("encoder", "tiny_net", r"begins with a capital, such as TinyNet; got 'tiny_net'"),
        ("encoder", "3", r"such as MyNet; got '3'"),
        ("encoder", "None", r"such as MyNet; got 'None'"),
        ("encoder", "ResNet", r"ResNet is a registered component already"),
        ("agent", "Class", r"the module class, which is a word of Python's own"),
        ("agent", "Json", r"the module json, which is a Python module already"),
        ("agent", "GaussianPolicy", r"the package itself uses something that is called GaussianPolicy"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path, kind, name, match):
    with pytest.raises(UserError, match=match):
        new.write(kind, name, tmp_path, print)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "tiny_net").mkdir()
    with pytest.raises(UserError, match=r"tiny_net exists already; choose another name"):
        new.write("encoder", "TinyNet", tmp_path, print)
    assert not list((tmp_path / "tiny_net").iterdir())


def test_a_placeholder_is_a_name_like_others(tmp_path):
    new.write("encoder", "MyEncoder", tmp_path, print)
    template = Path(__file__).parents[2] / "templates" / "encoder"
    assert (tmp_path / "my_encoder" / "my_encoder.py").read_text() == (template / "my_encoder.py").read_text()
