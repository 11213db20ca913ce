"""What the operating system is told about this process's memory."""

import os
import subprocess
import sys

import pytest

from rrl.machine.processes import available_memory, family, memory, peak_memory

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


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(80_000_000); print('ready', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
child.communicate(b"\\n")
"""


def test_memory_is_that_of_a_process_and_all_below_it():
    before = memory(os.getpid())
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        assert family(process.pid) == [process.pid, child]
        assert {process.pid, child} < set(family(os.getpid()))
        assert 80e6 < memory(process.pid) < 160e6
        assert memory(os.getpid()) - before > 70e6  # pages that all share now count less for this one
        process.communicate(b"\n")
    assert family(process.pid) == [process.pid]  # it has ended
    assert memory(process.pid) == 0
    assert 1e7 < available_memory() < 1e14


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read in /proc")
def test_a_peak_outlasts_the_memory_it_was_of():
    before = peak_memory(os.getpid())
    program = "b = bytearray(b'1') * 100_000_000; del b; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        peak = peak_memory(os.getpid()) - before
        child.communicate(b"\n")
    assert 100e6 < peak < 150e6
