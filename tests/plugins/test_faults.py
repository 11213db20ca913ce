"""A fault in a plugin's code is told by the plugin's own lines, whichever process it happens in."""

import re
from pathlib import Path

import pytest
from helpers.plugins import install
from helpers.stores import prepared
from typer.testing import CliRunner

from rrl import cli

HERE = Path(__file__).parent
GIN = """
Experiment.env = @Faulty()
Experiment.encoder = @State()
Experiment.agent = @NPG()
Experiment.evaluators = ()
Experiment.num_envs = 2
Experiment.workers = {workers}
Experiment.iterations = 1
NPG.trajectories = 2
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, with the plugin installed."""
    install(monkeypatch, tmp_path / "site", "plugins.faulty")
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(prepared(tmp_path))
    return tmp_path


def line_of(text):
    """`FILE:LINE` of the plugin's only line with this text."""
    lines = (HERE / "faulty.py").read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if text in line]
    return f"{HERE / 'faulty.py'}:{number}"


@pytest.mark.parametrize(("workers", "options"), [(0, ()), (1, ()), (1, ("--dry-run",))])
def test_a_run_and_its_dry_run_name_the_plugins_lines(here, workers, options):
    (here / "run.gin").write_text(GIN.format(workers=workers))
    done = CliRunner().invoke(cli.app, ["run", "run.gin", *options], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert "error: a plugin's code failed: KeyError: 'hnad'\n" in done.output
    assert f"{line_of('self.fail()')}, in step" in done.output
    assert f'{line_of("hnad")}, in fail\n    return {{"hand": np.zeros(3)}}["hnad"]' in done.output
    assert "Traceback" not in done.output and "rrl/envs" not in done.output


def test_what_a_plugin_calls_is_told_after_its_own_lines(here):
    (here / "run.gin").write_text(GIN.format(workers=1) + '\nFaulty.fault = "a library\'s"\n')
    done = CliRunner().invoke(cli.app, ["run", "run.gin"], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert "a plugin's code failed: json.decoder.JSONDecodeError: Expecting property name" in done.output
    places = re.findall(r"^  \S+?(\w+)\.py:\d+, in ", done.output, re.MULTILINE)
    assert places[:2] == ["faulty", "faulty"] and places[-1] == "decoder"


def test_what_fails_in_rrl_below_a_plugin_stays_a_fault_of_ours(here):
    (here / "run.gin").write_text(GIN.format(workers=1) + "\nFaulty.fault = 'rrl'\n")
    with pytest.raises(RuntimeError, match=r"(?s)an environment worker failed:.*faulty\.py.*registry\.py.*Error"):
        CliRunner().invoke(cli.app, ["run", "run.gin"], catch_exceptions=False)
