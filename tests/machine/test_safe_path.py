"""Files in the working folder are data: whatever their names, no command runs one of them. Real processes.

Sweeps, on this machine and by Ray and submitit, are tried in tests/sweeps.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from helpers.stores import prepared
from helpers.sweep_runs import RRL, SMALL
from helpers.traps import set_traps, untouched

from rrl.bench import sampling
from rrl.machine.processes import family


def test_a_run_with_worker_processes_and_mlflows_pages(tmp_path: Path) -> None:
    folder = prepared(set_traps(tmp_path))
    settings = (*SMALL[1:], "Experiment.iterations = 0", "Experiment.workers = 2")
    sets = [part for text in settings for part in ("--set", text)]
    done = subprocess.run([RRL, "run", "adroit_door_state", *sets], cwd=folder, capture_output=True, text=True)
    assert untouched(folder)
    assert done.returncode == 0, done.stderr

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([RRL, "ui", "--port", str(port)], cwd=folder)
    try:
        deadline = time.monotonic() + 100
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert untouched(folder)
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert untouched(folder)
        assert len(family(server.pid)) <= 3  # none of MLflow's job runners
    finally:
        server.terminate()
        server.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as page:
            return page.status == 200
    except OSError:
        return False


def test_a_benchmarks_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(set_traps(tmp_path))
    physics = sampling.Pipeline("physics", "door", "none", "none")
    (entry,) = sampling.measure([physics], 1, 0.1, lambda text: None)
    assert entry.rates[0] > 0
    assert untouched(tmp_path)


LIBRARY = """
from rrl.envs.adroit import Adroit
from rrl.envs.vector import WorkerVectorEnv

if __name__ == "__main__":
    WorkerVectorEnv(Adroit(Adroit.Config(task="door")), 1, None, 1).close()
"""


def test_workers_of_a_script(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    script = tmp_path_factory.mktemp("elsewhere") / "train.py"
    script.write_text(LIBRARY)
    done = subprocess.run([sys.executable, script], cwd=set_traps(tmp_path), capture_output=True, text=True)
    assert untouched(tmp_path)
    assert done.returncode == 0, done.stderr
