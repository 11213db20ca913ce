"""What Linux knows of running processes, their children and their memory; and what this one keeps of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def family(root: int) -> list[int]:
    """The process `root` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory(root: int) -> int:
    """Bytes of a process and its descendants, each with its part of what they share (PSS); 0: no /proc."""
    total = 0
    for pid in family(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
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


def available_memory() -> float:
    """Bytes that new processes may take, within the container's limit; infinite where Linux doesn't say."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        room = float(limit) - float(used)
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        room = float("inf")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return room
    free = (1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min(room, next(free, room))
