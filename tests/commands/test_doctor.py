"""`rrl doctor` asks every registered part what it needs, and measures what a run would do."""

import re

import pytest

from rrl import registry
from rrl.commands import doctor
from rrl.config import ginfile
from rrl.envs.base import EnvFactory


def test_every_part_says_what_it_needs_and_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_plugins()
    monkeypatch.setattr(registry, "_components", dict(registry._components))

    @registry.register
    class Seafloor(EnvFactory):
        """Made up."""

        packages = ("numpy", "rrl-no-such-simulator")
        cameras = ()
        horizon = 1

        def make_one(self, frames):
            raise NotImplementedError

        class Config(EnvFactory.Config):
            """Made up."""

    lines = list(doctor._needs("environment"))
    (own,) = [line for line in lines if "Seafloor" in line]
    assert re.fullmatch(r"Seafloor: numpy \d[\w.]*, rrl-no-such-simulator NOT INSTALLED", own)
    for kind in doctor.KINDS:
        users = [name for line in doctor._needs(kind) for name in line.split(":")[0].split(", ")]
        assert sorted(users) == registry.names(kind)


def test_the_report_measures_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.05)
    lines: list[str] = []
    pixels = doctor.report(lines.append)
    text = "\n".join(lines)
    for start in ("system: ", "versions: rrl ", "environments:", "encoders:", "rendering: ", "torch: ", "weights:"):
        assert any(line.startswith(start) for line in lines), text
    assert "a run from pixels here: " in text
    looks = re.findall(r"  look (\w+) +(\d+) steps/s in one process \(224 px\)", text)
    assert [look for look, _ in looks] == (["fast", "balanced", "default"] if pixels else [])
    assert all(int(rate) > 0 for _, rate in looks)


def test_the_threads_of_the_environment_are_told_and_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    example = ginfile.load(doctor.EXAMPLE)
    for value, expected in (("3", "; 3 threads"), ("many", "none, OMP_NUM_THREADS must be a whole number > 0")):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        lines: list[str] = []
        doctor._run_here(example, lines.append)
        assert expected in lines[0]
        assert f"  OMP_NUM_THREADS is {value}: it decides the threads where Experiment.threads is None" in lines
