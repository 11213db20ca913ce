"""Builds the source distribution and from it the wheel, and tries the wheel as a user does who has nothing else.

    python3 scripts/try_release.py                                      # this checkout: builds into dist/
    python3 scripts/try_release.py dist/rrl-0.2.0-py3-none-any.whl      # a wheel that is there; no checkout is needed

The wheel goes into a new virtual environment in a temporary folder, by the index that pip is configured for: some 6 GB,
and as many minutes as that takes to fetch. What is typed there runs in another empty folder, with an empty home and
none of this shell's variables but OMP_NUM_THREADS and those that pip needs. Pictures are rendered. Needs Python's venv
and the system packages of docs/install.md, and nothing that is installed for the python that runs it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "offline,cpu"
SHORT = {
    "Experiment.iterations": 1,
    "Experiment.num_envs": 2,
    "DAPG.trajectories": 2,
    "DAPG.bc_epochs": 1,
    "DemoSet.episodes": 2,
    "SuccessRate.episodes": 2,
    "BlindControl.clones": 1,
    "BlindControl.episodes": 2,
    "Video.episodes": 1,
    "Video.every": 20,
}
"""The quickstart in seconds: everything happens, too little of it to learn from."""

IN_PYTHON = """
import pathlib, sys
import rrl
assert not {"torch", "numpy", "mlflow"} & sys.modules.keys(), "import rrl imports more than it needs"
assert pathlib.Path(rrl.__file__).is_relative_to(sys.prefix), rrl.__file__
assert (pathlib.Path(rrl.__file__).parent / "py.typed").is_file()
policy = rrl.load_policy("door")
env = policy.make_env()
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(policy.act(obs))
env.close()
print(rrl.__file__, obs["frames"].shape, policy.act(obs).shape)
"""


@dataclass
class User:
    """Somebody who types commands, with a home and a folder that were empty."""

    home: Path
    work: Path
    path: str = os.environ["PATH"]
    variables: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.work.mkdir()
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or "CERT" in name or name.lower().endswith("_proxy") or name == "OMP_NUM_THREADS"
        }
        pips = Path.home() / ".config" / "pip" / "pip.conf"  # the index that it names; the new home has none
        if pips.is_file():
            self.variables.setdefault("PIP_CONFIG_FILE", str(pips))

    def types(self, line: str, *shown: str) -> str:
        """Run a command; returns its output. SystemExit where it fails, or lacks one of the patterns of `shown`."""
        began = time.monotonic()
        environment = {**self.variables, "PATH": self.path, "HOME": str(self.home), "LANG": "C.UTF-8"}
        done = subprocess.run(
            shlex.split(line),
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"{time.monotonic() - began:6.1f} s  {line.strip().splitlines()[0][:100]}", flush=True)
        lacking = [pattern for pattern in shown if not re.search(pattern, done.stdout)]
        if done.returncode or lacking:
            why = f"exit code {done.returncode}" if done.returncode else f"not shown: {', '.join(lacking)}"
            sys.exit(f"{done.stdout}\n{line}\nfailed: {why}")
        return done.stdout


def build(into: Path, scratch: Path) -> Path:
    """The wheel of this checkout, made from its source distribution, as whoever packages it makes it."""
    builder = User(scratch / "builder", scratch / "building")
    builder.types(f"{sys.executable} -m venv {scratch / 'build'}")
    python = scratch / "build" / "bin" / "python"
    builder.types(f"{python} -m pip install -q build")
    builder.types(f"{python} -m build --outdir {into} {ROOT}", r"Successfully built rrl-\S+\.tar\.gz and rrl-\S+\.whl")
    return max(into.glob("rrl-*.whl"), key=lambda path: path.stat().st_mtime)


def install(wheel: Path, scratch: Path) -> User:
    """A user in whose virtual environment the wheel is."""
    user = User(scratch / "home", scratch / "work")
    user.types(f"{sys.executable} -m venv {scratch / 'venv'}")
    user.path = f"{scratch / 'venv' / 'bin'}:{user.path}"
    user.types(f"pip install -q {shlex.quote(f'{wheel}[{EXTRAS}]')}")
    user.types("pip check", "No broken requirements")
    return user


def tour(user: User, version: str) -> None:
    """What the README shows first, once each."""
    user.types("rrl --version", re.escape(version))
    user.types("rrl --help", "--version")
    user.types("rrl list", "MobileNetV2", "DAPG", "Adroit", "SuccessRate")
    user.types("rrl list files", "adroit_door_mobilenetv2")
    user.types("rrl list policies", "adroit_door_expert")
    user.types("rrl check quickstart", r"DAPG\.trajectories = 25")
    user.types("rrl show quickstart", r"quickstart\.gin:\d+")
    user.types("rrl describe DAPG", r"DAPG\.trajectories")
    user.types("rrl doctor", "MobileNetV2", r"rrl\S* +\S*" + re.escape(version))

    user.types("rrl new encoder TinyNet", r"tiny_net\.gin")
    user.types("pip install -q ./tiny_net")
    user.types("rrl list encoder", r"TinyNet +Four convolutions")
    user.types("rrl check quickstart tiny_net/tiny_net.gin", r"Experiment\.encoder = @TinyNet\(\)")

    settings = " ".join(f"--set '{name} = {value}'" for name, value in SHORT.items())
    user.types(f"rrl run quickstart {settings}", r"mean action: success .* of 2 episodes", "blind control", r"\.mp4")
    (run,) = (path.parent.name[:8] for path in user.work.glob("runs/*/run.json"))
    user.types("rrl runs", run[:4], "FINISHED|finished")
    user.types("rrl report", r"report\.html")
    user.types(f"rrl resume {run} --iterations 2", "resumed after 1 updates")
    user.types(f"rrl eval {run} --episodes 2", "success")
    user.types(f"rrl export {run} --hub door", "README.md")
    user.types("rrl eval door --episodes 2", "success")
    user.types(f"python -c {shlex.quote(IN_PYTHON)}", r"\(224, 224, 3\) \(28,\)")


def main() -> None:
    """Build if no wheel is given, install, try; exit code 1 and the failing command's output where one fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rrl-release-") as name:
        scratch = Path(name)
        wheel = Path(sys.argv[1]).resolve() if sys.argv[1:] else build(ROOT / "dist", scratch)
        tour(install(wheel, scratch), wheel.name.split("-")[1])
    print(f"{wheel.name} works: {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
