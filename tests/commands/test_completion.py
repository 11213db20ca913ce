"""What a shell offers on Tab: the real command, asked as bash asks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.report_runs import make_run

from rrl.commands import known
from rrl.config import ginfile

HEAVY = ("torch", "mlflow", "mujoco", "matplotlib")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that knows the components."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RRL_CACHE", str(folder))
        known.components()
    return folder


def offered(cache: Path, folder: Path, *words: str) -> list[str]:
    """For the last word; `torch` and its like must not be imported meanwhile."""
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('heavy:', *{HEAVY} & {{name.split('.')[0] for name in sys.modules}}, "
        "file=sys.stderr))\n"
        "from rrl.cli import app\n"
        "app(prog_name='rrl')\n"
    ).replace(str(HEAVY), f"set({HEAVY})")
    asked = {"COMP_WORDS": "\n".join(["rrl", *words]), "COMP_CWORD": str(len(words)), "_RRL_COMPLETE": "complete_bash"}
    env = {**os.environ, **asked, "RRL_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["heavy:"], done.stderr
    return done.stdout.split()


def test_shipped_files_and_files_here(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("adroit_mine.gin", "sub/other.gin", "adroit.txt"):
        (tmp_path / name).write_text("")
    shipped = [name for name in ginfile.shipped() if name.startswith("adroit_")]
    assert offered(cache, tmp_path, "check", "adroit_") == [*shipped, "adroit_mine.gin"]
    assert offered(cache, tmp_path, "run", "su") == ["sub/"]
    assert offered(cache, tmp_path, "run", "sub/") == ["sub/other.gin"]
    assert offered(cache, tmp_path, "run", "quickstart", "env/adroit_f") == ["env/adroit_fast"]


def test_runs(cache: Path, tmp_path: Path) -> None:
    for run_id in ("aa11bb22cc", "aa22bb22cc", "bb11bb22cc01", "bb11bb22cc02"):
        make_run(tmp_path / "runs", run_id)
    assert sorted(offered(cache, tmp_path, "resume", "aa")) == ["aa11bb22", "aa22bb22"]
    assert sorted(offered(cache, tmp_path, "compare", "aa11", "bb")) == ["bb11bb22cc01", "bb11bb22cc02"]
    assert offered(cache, tmp_path, "diff", "quickstart", "aa1") == ["aa11bb22"]
    assert offered(cache, tmp_path, "eval", "aa11bb22cc") == ["aa11bb22cc"]


@pytest.mark.parametrize("command", ["describe", "schema"])
def test_components(cache: Path, tmp_path: Path, command: str) -> None:
    assert offered(cache, tmp_path, command, "Mobile") == ["MobileNetV2"]
    assert offered(cache, tmp_path, command, "zz") == []


def test_settings_of_what_the_line_names(cache: Path, tmp_path: Path) -> None:
    line = ("run", "quickstart", "--set")
    assert offered(cache, tmp_path, *line, "Adroit.loo") == ["Adroit.look="]
    assert offered(cache, tmp_path, *line, '"Adroit.loo') == ["Adroit.look="]
    assert offered(cache, tmp_path, *line, "ResNet.") == []
    assert offered(cache, tmp_path, *line, '"Experiment.encoder = @ResNet()"', "--set", "ResNet.d") == ["ResNet.depth="]
    assert offered(cache, tmp_path, "run", "adroit_door_state", "--set", "final/SuccessRate.ep") == [
        "final/SuccessRate.episodes="
    ]
    assert offered(cache, tmp_path, "run", "--set", "ResNet.d") == ["ResNet.depth="]


def test_a_line_that_can_not_be_read_offers_nothing(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gin").write_text("include 'nowhere.gin'\n")
    assert offered(cache, tmp_path, "run", "bad.gin", "--set", "Adroit.") == []
    assert offered(cache, tmp_path, "run", "zzzz.gin", "--set", "Adroit.") == []


def test_kept_names_are_asked_anew_once_code_changes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRL_CACHE", str(tmp_path))
    kept = json.loads((cache / "components.json").read_text())
    kept["components"] = {"Kept": ["field"]}
    (tmp_path / "components.json").write_text(json.dumps(kept))
    assert known.components() == {"Kept": ["field"]}
    (tmp_path / "components.json").write_text(json.dumps({**kept, "code": "another"}))
    assert "DAPG" in known.components()
    assert "DAPG" in json.loads((tmp_path / "components.json").read_text())["components"]


def test_bash_takes_the_script(cache: Path, tmp_path: Path) -> None:
    """The script that `rrl --show-completion` prints, in bash."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    launcher = tmp_path / "rrl"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m rrl "$@"\n')
    launcher.chmod(0o755)
    script = (
        'eval "$(rrl --show-completion bash)"\nCOMP_WORDS=(rrl check quicks) COMP_CWORD=2\n'
        '_rrl_completion rrl\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RRL_CACHE": str(cache)}
    env |= {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # --show-completion takes the shell's name then
    done = subprocess.run([bash, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["quickstart"], done.stdout + done.stderr
