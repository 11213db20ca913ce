"""Running processes, their children and their memory; and what this one keeps of what it frees."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_PR_SET_PDEATHSIG = 1  # Linux: the kernel's word for "signal me when my parent dies"

SAFE_PATH = "PYTHONSAFEPATH"


def python(program: str, *arguments: str) -> list[str]:
    """The command of a child that runs `program`, which imports from this rrl and runs no file of the working folder.

    Not `-m`: environment workers import their parent's main module, and with it torch, which they never need.
    """
    here = str(Path(__file__).parents[2])  # last: a checkout that isn't installed, whose namesakes hide nothing
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({here!r}); {program}", *arguments]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, ends (Linux)."""
    if sys.platform == "linux":
        # SIGKILL: it can't be missed, and a run goes on from its checkpoint bit for bit.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            sys.exit(1)


@contextmanager
def safe_path() -> Iterator[None]:
    """Within the block, Python processes that libraries start run no file of the working folder: `-c` and `-m` put
    it first, where a `random.py` would hide Python's own."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before


def family(root: int) -> list[int]:
    """The process `root` and all that descend from it."""
    try:
        return [root, *(process.pid for process in psutil.Process(root).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [root]


def memory(root: int) -> int:
    """Bytes of a process and its descendants, each with its part of what they share (PSS); 0: not on Linux."""
    total = 0
    for pid in family(root):
        with suppress(psutil.Error):  # ended meanwhile
            total += getattr(psutil.Process(pid).memory_full_info(), "pss", 0)
    return total


def peak_memory(root: int) -> int:
    """Bytes that a process and its descendants have had at most: each one's own peak, added up, with all that it shares
    (RSS). Where there is no /proc, what they have now."""
    total = 0
    for pid in family(root):
        with suppress(psutil.Error, OSError):  # ended meanwhile
            status = Path(f"/proc/{pid}/status")
            lines = status.read_text().splitlines() if status.exists() else []
            peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
            total += psutil.Process(pid).memory_info().rss if peak is None else peak
    return total


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next tensors, from now on; no effect without glibc.

    glibc gives every freed block of 32 MB and more back to the kernel, which must clear each page again when
    the next tensor touches it: 10 ms for a batch of pictures whose conversion takes 1.2. What RAD gains is in
    docs/performance.md. Memory that must stay untouched, such as a replay memory's, needs a mapping of its
    own: `np.zeros` may get a block that was used before, and then writes all of it.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def in_bytes(count: float) -> str:
    """Such as `1.2 GB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def available_memory() -> float:
    """Bytes that new processes may take, within the container's limit."""
    free = float(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        return min(free, float(limit) - float(used))
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return free
