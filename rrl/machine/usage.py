"""How busy this machine is, under the names that MLflow's pages show as system metrics."""

from __future__ import annotations

import os

import psutil
import torch

from rrl.machine.processes import family

MEGABYTE = 1e6


class Usage:
    """Measures from one call to the next; a call takes milliseconds, and nothing goes on in between."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        psutil.cpu_percent()  # from here on

    def __call__(self) -> dict[str, float]:
        """Percent of all cores since the last call; memory of the machine, of this process and its workers (with all
        that they share), and of the run's GPU, in MB, now."""
        memory = psutil.virtual_memory()
        used = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": (memory.total - memory.available) / MEGABYTE,
            "system_memory_usage_percentage": float(memory.percent),
            "process_memory_usage_megabytes": sum(_resident(pid) for pid in family(os.getpid())) / MEGABYTE,
        }
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            used["gpu_0_memory_usage_megabytes"] = (total - free) / MEGABYTE
        return {f"system/{name}": value for name, value in used.items()}


def _resident(pid: int) -> int:
    """Bytes; 0 of a process that ended meanwhile."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
