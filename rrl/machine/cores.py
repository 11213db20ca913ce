"""Processor cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

MOST_THREADS = 1_024
"""Beyond any machine's cores. Threads that have no core wait busily for each other, and systems refuse new ones after
some thousands, where torch hangs."""


def cores() -> int:
    """Processor cores that this process may use: its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        return count
