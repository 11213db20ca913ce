"""What the operating system is told about this process's memory."""

import subprocess
import sys

import pytest

PROGRAM = """
import os
import torch
from rrl.agents.replay import Replay
from rrl.machine.processes import keep_freed_memory, memory
import numpy as np

if {keep}:
    keep_freed_memory()
megabytes = lambda: memory(os.getpid()) / 1e6
before = megabytes()
filled = torch.ones(100_000_000, dtype=torch.uint8)
del filled
print(megabytes() - before)
replay = Replay(3_000, 30_000, np.uint8, 1)
replay._allocate(1)
print(megabytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("keep", [False, True])
def test_freed_memory_is_kept_and_an_empty_replay_memory_takes_none(keep):
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    freed, empty = (float(line) for line in done.stdout.split())
    assert (freed > 90) == keep, freed
    assert empty < freed + 10, empty
