"""Faults on purpose, and what they cost: kill -9 of runs and of their workers, interrupted first starts, signals, a
full disk. `make torture` runs it all (docs/determinism.md has a table); `--only sac --rounds 1` a part.

Every disturbed run is small, is resumed until it ends, and is compared with one that nothing disturbed: tensors of
checkpoint and policies, the rows of metrics but for times, and MLflow's points with the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from rrl.store.tracking import NO_NAME

FAULTS = (
    "killed",
    "worker-killed",
    "SIGTERM",
    "SIGHUP",
    "Ctrl-C-twice",
    "first-start-killed",
    "disk-full",
    "server-killed",
)
SERVER = (
    *("mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"),
    *("--artifacts-destination", "mlartifacts", "--serve-artifacts", "--port"),
)
LONGEST = 600
"""Seconds after which a run that should end is called hung."""
DISK = 12
"""MB of the small disk."""
COMMON = ("Experiment.threads = 1", "Experiment.num_envs = 2", "Experiment.workers = 2")
DAPG = (
    "Experiment.iterations = 3",
    "Experiment.eval_every = 150",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 1",
    "Adroit.horizon = 50",
    "DAPG.trajectories = 4",
    "DAPG.bc_epochs = 1",
    "DAPG.policy_hidden = (32, 32)",
    "DAPG.value_batch = 16",
    "DemoSet.episodes = 1",
)
DMC = (
    "Experiment.iterations = 4",
    "Experiment.log_every = 480",  # episodes of 70 steps go on over checkpoints
    "Experiment.eval_every = 960",
    "Experiment.evaluators = (@EpisodeReturn(),)",
    "EpisodeReturn.episodes = 1",
    "DMControl.horizon = 70",
)
SAC = ("SAC.replay = 200", "SAC.init_steps = 40", "SAC.batch = 16", "SAC.hidden = (32, 32)")  # the ring wraps
RAD = (
    "DMControl.look = 'fast'",
    "RAD.replay = 200",
    "RAD.init_steps = 40",
    "RAD.batch = 6",
    "RAD.hidden = (32, 32)",
    "PixelCNN.render = 24",
    "PixelCNN.crop = 20",
    "PixelCNN.filters = 8",
)
RLPD = (
    "Experiment.iterations = 4",
    "Experiment.log_every = 60",
    "Experiment.eval_every = 120",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 1",
    "Adroit.horizon = 70",
    "RLPD.replay = 200",
    "RLPD.init_steps = 80",
    "RLPD.critics_first = 5",
    "RLPD.batch = 8",
    "RLPD.hidden = (16, 16)",
    "RLPD.policy_hidden = (16,)",
    "RLPD.bc_epochs = 1",
    "RLPD.overlap = True",
)
VAE = (
    "Pretraining.pictures = 160",
    "Pretraining.epochs = 4",
    "Pretraining.batch = 24",
    "Pretraining.held_out = 0.1",
    "Pretraining.num_envs = 2",
    "Pretraining.workers = 1",
    "Pretraining.threads = 1",
    "Adroit.horizon = 10",
    "VAE.size = 32",
    "VAE.latent = 8",
)


def words(command: str, name: str, *settings: str) -> tuple[str, ...]:
    """A command line of rrl's."""
    return command, name, *(part for setting in settings for part in ("--set", setting))


SUBJECTS = {
    "dapg": words("run", "adroit_pen_mobilenetv2", *COMMON, *DAPG),
    "sac": words("run", "dmc_cartpole_swingup_state_sac", *COMMON, *DMC, *SAC),
    "rad": words("run", "dmc_cartpole_swingup_rad", *COMMON, *DMC, *RAD),
    "rlpd": words("run", "adroit_door_rlpd_state", *COMMON, *RLPD),
    "pretraining": words("pretrain", "pretrain/vae_adroit_door", *VAE),
}


@dataclass
class Row:
    """What came of one fault."""

    fault: str
    subject: str
    times: int = 0
    """How often the fault struck something that was alive."""
    ended: int = 0
    """Runs, and those of them that were the same in the end."""
    same: int = 0
    lost: list[str] = field(default_factory=list)
    """What was not as it should be, in words."""


class Project:
    """A folder in which rrl works."""

    def __init__(self, folder: Path, start: Sequence[str], store: Path | None, server: str = "") -> None:
        """`store`: an empty MLflow store to begin with, whose making takes seconds; None: the run makes its own.
        `server`: the address of what serves that store, if anything does."""
        self.folder, self.start = folder, start
        self.environment = os.environ | ({"MLFLOW_TRACKING_URI": server} if server else {})
        folder.mkdir(parents=True, exist_ok=True)
        if store is not None:
            shutil.copy(store, folder / "mlflow.db")

    def run(self) -> Path | None:
        """The folder of its run."""
        return next((path.parent for path in self.folder.glob("runs/*/run.json")), None)

    def begin(self) -> subprocess.Popen[bytes]:
        """Start the run, or go on with it."""
        run = self.run()
        line = self.start if run is None or self.start[0] == "pretrain" else ("resume", run.name)
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "rrl", *line],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self) -> str:
        """Let it come to its end; in words what went wrong."""
        process = self.begin()
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"hung ({self.folder})"
        return "" if code == 0 else f"exit {code} ({self.folder}/log.txt)"

    def outcome(self) -> dict[str, Any]:
        """Tensors by file and name, metrics that no clock measured, and points that MLflow lacks or has twice."""
        tensors = {
            f"{path.relative_to(self.folder / 'runs').name} {name}": tensor
            for path in sorted(self.folder.glob("runs/**/*.safetensors"))
            for name, tensor in load_file(path).items()
        }
        rows = [
            json.loads(line)
            for path in self.folder.glob("runs/*/metrics.jsonl")
            for line in path.read_text().splitlines()
        ]
        metrics = [(row["step"], {k: v for k, v in row["metrics"].items() if _lasting(k)}) for row in rows]
        return {"tensors": tensors, "metrics": metrics, "MLflow": self._undelivered(rows)}

    def _undelivered(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        wanted = sorted((NO_NAME.sub("_", key), row["step"]) for row in rows for key in row["metrics"])
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            points = sorted(database.execute("SELECT key, step FROM metrics").fetchall())
            states = [state for (state,) in database.execute("SELECT status FROM runs")]
        wrong = [f"MLflow says {state}" for state in states if state != "FINISHED"]
        for name in ("metrics.jsonl", "checkpoint.safetensors", "policy.safetensors", "learning_curve.png"):
            copies = [path.read_bytes() for path in self.folder.glob(f"mlartifacts/**/{name}")]
            if (run := self.run()) is not None and (run / name).exists() and (run / name).read_bytes() not in copies:
                wrong.append(f"MLflow has no {name}, or another")
        return wrong if not states or points == wanted else [*wrong, f"{len(wanted)} points, MLflow has {len(points)}"]


def _lasting(name: str) -> bool:
    return not name.startswith(("time/", "cost/")) or name.endswith("multiply_adds")


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """In words how an outcome differs from the undisturbed one."""
    if one["tensors"].keys() != other["tensors"].keys():
        return "other files or tensors"
    changed = [name for name, tensor in one["tensors"].items() if not torch.equal(tensor, other["tensors"][name])]
    if changed:
        return f"{len(changed)} tensors differ, such as {changed[0]}"
    return "metrics differ" if one["metrics"] != other["metrics"] else "; ".join(one["MLflow"])


Strike = Callable[[subprocess.Popen[bytes], random.Random], int]
"""What is done to a process that lives; returns how often that hit something."""


def struck(project: Project, draw: random.Random, latest: float, strike: Strike) -> int:
    """Go on with the run, strike it after at most `latest` seconds and let it end; returns the hits."""
    process = project.begin()
    try:
        process.wait(draw.uniform(0.1, latest))
        return 0
    except subprocess.TimeoutExpired:
        hits = strike(process, draw)
    try:
        process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return hits


def sending(*signals: signal.Signals) -> Strike:
    """Sends them to the run's own process, a second apart."""

    def strike(process: subprocess.Popen[bytes], draw: random.Random) -> int:
        for number in signals:
            process.send_signal(number)
            time.sleep(1.0 if len(signals) > 1 else 0.0)
        return 1

    return strike


def killing_workers(count: int) -> Strike:
    """Kills so many of the simulators' processes as they come, one after the other, while the run goes on."""

    def strike(process: subprocess.Popen[bytes], draw: random.Random) -> int:
        hits = 0
        while hits < count and process.poll() is None:
            time.sleep(draw.uniform(0.1, 1.0))
            if alive := workers(process.pid):
                os.kill(draw.choice(alive), signal.SIGKILL)
                hits += 1
        return hits

    return strike


def workers(parent: int) -> list[int]:
    """Processes of a run that simulate: those that its fork server has made."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(path.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
        except OSError:
            continue
    return [grandchild for child in children.get(parent, []) for grandchild in children.get(child, [])]


class Torture:
    """All faults, with the outcomes to compare with."""

    def __init__(self, root: Path, arguments: argparse.Namespace, console: Console) -> None:
        self.root, self.arguments, self.console = root, arguments, console
        self.store = root / "empty.db"
        self.references: dict[str, tuple[dict[str, Any], float]] = {}

    def prepare(self) -> None:
        """An empty store, and each subject's undisturbed run."""
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{self.store}").search_experiments()
        for subject in self.arguments.only:
            project = Project(self.root / subject / "undisturbed", SUBJECTS[subject], self.store)
            began = time.monotonic()
            if wrong := project.finish():
                raise SystemExit(f"{subject} fails without any fault: {wrong}")
            outcome = project.outcome()
            self.references[subject] = outcome, time.monotonic() - began
            self.console.print(f"{subject}: {self.references[subject][1]:.0f} s undisturbed", highlight=False)
            assert not outcome["MLflow"], outcome["MLflow"]

    def rows(self) -> Iterator[Row]:
        """One fault after the other, those that were asked for."""
        first = self.arguments.only[0]
        each: dict[str, tuple[int, Strike]] = {
            "killed": (self.arguments.kills, sending(signal.SIGKILL)),
            "worker-killed": (1, killing_workers(2)),  # a third one in an update would end the run
        }
        once: dict[str, Callable[[], Row]] = {
            "SIGTERM": lambda: self.fault("SIGTERM", first, 1, sending(signal.SIGTERM)),
            "SIGHUP": lambda: self.fault("SIGHUP", first, 1, sending(signal.SIGHUP)),
            "Ctrl-C-twice": lambda: self.fault("Ctrl-C-twice", first, 1, sending(signal.SIGINT, signal.SIGINT)),
            "first-start-killed": self.first_starts,
            "disk-full": self.full_disk,
            "server-killed": self.server_killed,
        }
        for name in self.arguments.faults:
            for subject in self.arguments.only if name in each else ():
                yield self.fault(name, subject, *each[name])
            if name in once:
                yield once[name]()

    def fault(self, name: str, subject: str, times: int, strike: Strike) -> Row:
        """Runs that are each struck so many times at random moments and then left to end."""
        row, (reference, seconds) = Row(name, subject), self.references[subject]
        seeds = [f"{self.arguments.seed} {name} {subject} {number}" for number in range(self.arguments.rounds)]

        def one(seed: str) -> tuple[int, str]:
            draw = random.Random(seed)
            project = Project(self.root / subject / seed.replace(" ", "_"), SUBJECTS[subject], self.store)
            latest = 0.2 if name == "worker-killed" else seconds  # there are workers for a part of that alone
            hits = sum(struck(project, draw, latest, strike) for _ in range(times))
            wrong = project.finish() or differences(project.outcome(), reference)
            if not wrong:
                shutil.rmtree(project.folder)
            return hits, wrong

        with ThreadPoolExecutor(self.arguments.jobs) as pool:
            for hits, wrong in pool.map(one, seeds):
                row.times, row.ended = row.times + hits, row.ended + 1
                row.same += not wrong
                row.lost += [wrong] * bool(wrong)
        return row

    def first_starts(self) -> Row:
        """Folders in which nothing is yet: ten starts are killed in each, before a run is left to end."""
        subject = self.arguments.only[0]
        row, (reference, _) = Row("first-start-killed", subject), self.references[subject]
        draw = random.Random(f"{self.arguments.seed} starts")
        for number in range(-(-self.arguments.starts // 10)):
            project = Project(self.root / "starts" / str(number), SUBJECTS[subject], None)
            for _ in range(min(10, self.arguments.starts - 10 * number)):
                row.times += struck(project, draw, 8.0, sending(signal.SIGKILL))
            wrong = project.finish() or differences(project.outcome(), reference)
            row.ended, row.same = row.ended + 1, row.same + (not wrong)
            row.lost += [wrong] * bool(wrong)
        return row

    def full_disk(self) -> Row:
        """The folder lies on a small disk that something else fills at a random moment and clears again."""
        subject = self.arguments.only[0]
        row, (reference, seconds) = Row("disk-full", subject), self.references[subject]
        draw = random.Random(f"{self.arguments.seed} disk")
        for number in range(self.arguments.rounds):
            folder = self.root / "disk" / str(number)
            with small_disk(folder) as there:
                if not there:
                    row.lost = ["not tried: mounting a small disk takes root's rights"]
                    return row
                project = Project(folder / "project", SUBJECTS[subject], self.store)

                def fill(
                    process: subprocess.Popen[bytes], draw: random.Random, filler: Path = folder / "filler"
                ) -> int:
                    with filler.open("wb", buffering=0) as file:
                        while process.poll() is None:  # what is deleted is filled again
                            with suppress(OSError):
                                file.write(bytes(1 << 16))
                                continue
                            time.sleep(0.01)
                    return int(process.wait(LONGEST) != 0)

                row.times += struck(project, draw, seconds, fill)
                (folder / "filler").unlink(missing_ok=True)
                wrong = project.finish() or differences(project.outcome(), reference)
                row.ended, row.same = row.ended + 1, row.same + (not wrong)
                row.lost += [f"{wrong}: {_last_line(project)}"] * bool(wrong)
        return row

    def server_killed(self) -> Row:
        """MLflow's server is killed at a random moment, and started again seconds later."""
        subject = self.arguments.only[0]
        row, (reference, seconds) = Row("server-killed", subject), self.references[subject]
        draw = random.Random(f"{self.arguments.seed} server")
        for number in range(self.arguments.rounds):
            port = free_port()
            folder = self.root / "server" / str(number)
            project = Project(folder, SUBJECTS[subject], self.store, f"http://127.0.0.1:{port}")
            server = serving(folder, port)

            def strike(
                process: subprocess.Popen[bytes], draw: random.Random, folder: Path = folder, port: int = port
            ) -> int:
                nonlocal server
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
                time.sleep(draw.uniform(0.0, 20.0))
                server = serving(folder, port)
                return 1

            try:
                row.times += struck(project, draw, seconds, strike)
                wrong = project.finish() or differences(project.outcome(), reference)
            finally:
                os.killpg(server.pid, signal.SIGKILL)
            row.ended, row.same = row.ended + 1, row.same + (not wrong)
            row.lost += [f"{wrong}: {_last_line(project)}"] * bool(wrong)
        return row


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


def serving(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """An MLflow server of the folder's store, which answers when this returns."""
    with (folder / "server.txt").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *SERVER, str(port)], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return server
        except OSError:
            if server.poll() is not None:
                raise RuntimeError(f"the server ended: {folder / 'server.txt'}") from None
            time.sleep(0.2)


def _last_line(project: Project) -> str:
    lines = (project.folder / "log.txt").read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of `DISK` MB in memory; False without the rights to mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    there = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def main() -> int:
    """Print the table; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="what to disturb")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS, help="what to do to it")
    parser.add_argument("--rounds", type=int, default=5, help="runs for each fault and subject")
    parser.add_argument("--kills", type=int, default=4, help="how often each is killed")
    parser.add_argument("--starts", type=int, default=50, help="interrupted first starts")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments, as far as clocks let it")
    arguments = parser.parse_args()
    console, began = Console(width=110), time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"
    root = Path(tempfile.mkdtemp(prefix="rrl-torture-"))
    torture = Torture(root, arguments, console)
    torture.prepare()
    table = Table("fault", "run", "times", "runs ended", "bit-identical", "lost")
    lost = 0
    for row in torture.rows():
        console.print(
            f"{row.fault}, {row.subject}: {row.times} times, {row.same} of {row.ended} the same", highlight=False
        )
        table.add_row(
            row.fault, row.subject, str(row.times), str(row.ended), str(row.same), "\n".join(row.lost) or "nothing"
        )
        lost += row.ended - row.same
    console.print(table)
    minutes = (time.monotonic() - began) / 60
    console.print(f"seed {arguments.seed}, {minutes:.0f} minutes, {platform.machine()}, {os.cpu_count()} cores")
    if lost:
        console.print(f"the disturbed runs that went wrong are kept in {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
