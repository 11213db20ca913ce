"""A run whose workers die: it goes on with the same numbers, or ends in plain words and can be resumed."""

import json
import os
import signal

import pytest
from helpers import adroit
from helpers.stores import prepared
from typer.testing import CliRunner

from rrl import cli
from rrl.envs.vector import WorkerVectorEnv

SMALL = ("Experiment.iterations = 2", "Experiment.workers = 1", *adroit.SHORT_RUN)
DEMONSTRATION = 100
"""Steps of the environments that come first; then five for each update."""


@pytest.fixture
def killing(monkeypatch):
    """killing(steps): the worker is killed in these steps of the environments."""
    begin = WorkerVectorEnv.begin_step

    def at(steps):
        begun = [0]

        def begin_step(self, actions, active):
            begun[0] += 1
            if begun[0] in steps:
                os.kill(self._workers[0]._process.pid, signal.SIGKILL)
            return begin(self, actions, active)

        monkeypatch.setattr(WorkerVectorEnv, "begin_step", begin_step)

    return at


def rrl(*words, code=0):
    done = CliRunner().invoke(cli.app, [*words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def numbers(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("time/", "cost/")
    return [
        (row["step"], {name: value for name, value in row["metrics"].items() if not name.startswith(timed)})
        for row in rows
    ]


def test_runs_go_on_over_deaths_and_end_after_three(tmp_path, monkeypatch, killing):
    monkeypatch.chdir(prepared(tmp_path))
    words = ["run", "adroit_pen_state", *(part for text in SMALL for part in ("--set", text))]
    rrl(*words)
    (undisturbed,) = tmp_path.glob("runs/*/metrics.jsonl")

    killing({3, 50, DEMONSTRATION + 8})
    with pytest.warns(UserWarning, match="an environment worker ended") as told:
        rrl(*words)
    told = [str(warning.message) for warning in told if "worker ended" in str(warning.message)]
    assert len(told) == 3
    assert (
        told[1] == "an environment worker ended (killed by SIGKILL (out of memory?)): replaced, and 49 steps made again"
    )
    (other,) = (path for path in tmp_path.glob("runs/*/metrics.jsonl") if path != undisturbed)
    assert numbers(other.parent) == numbers(undisturbed.parent)

    killing({DEMONSTRATION + n for n in (7, 8, 9)})
    with pytest.warns(UserWarning, match="an environment worker ended"):
        said = rrl(*words, code=1)
    assert "error: environment workers ended 3 times in one update, the last one killed by SIGKILL" in said
    assert "checkpoint and policies stay as they were after update 1: `rrl resume` begins there" in said
    (third,) = (path for path in tmp_path.glob("runs/*/metrics.jsonl") if path not in (undisturbed, other))
    killing(())
    rrl("resume", third.parent.name[:8])
    assert numbers(third.parent) == numbers(undisturbed.parent)
