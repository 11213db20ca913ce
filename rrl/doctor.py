"""`rrl doctor`: what this machine offers to a run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

from rrl.registry import UserError

PACKAGES = (
    "rrl",
    "torch",
    "torchvision",
    "mujoco",
    "gymnasium",
    "gymnasium-robotics",
    "mlflow",
)


def report(say: Callable[[str], None]) -> bool:
    """Print the report; False if a run from pixels can't work here."""
    say(f"system: {platform.platform()}, Python {platform.python_version()}")
    say("versions: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    pixels = _rendering(say)
    _torch(say)
    from rrl.encoders import weights

    say("weights:")
    for row in weights.rows():
        say(f"  {row}")
    from rrl import demos

    say("demonstrations: " + (", ".join(demos.shipped()) or "none"))
    return pixels


def _rendering(say: Callable[[str], None]) -> bool:
    from rrl.envs import gl
    from rrl.envs.adroit import Adroit
    from rrl.envs.base import FrameRequest

    gl.choose_backend()
    try:
        say(f"rendering: {gl.renderer()} (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')})")
    except UserError as error:
        say(f"rendering: {error}")
        return False
    import numpy as np

    for look in ("fast", "balanced", "default"):
        env = Adroit(Adroit.Config(task="door", look=look)).make_one(FrameRequest(224, 256))
        try:
            env.reset(seed=0)
            action = np.zeros(28, np.float32)
            env.step(action)
            frames, start = 0, time.perf_counter()
            while time.perf_counter() - start < 1.5:
                env.step(action)
                frames += 1
            rate = frames / (time.perf_counter() - start)
            say(f"  look {look:<9} {rate:6.0f} steps/s in one process (224 px)")
        finally:
            env.close()
    return True


def _torch(say: Callable[[str], None]) -> None:
    import torch

    cpu = torch.cpu.get_capabilities()
    bf16 = "yes" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "no (precision 'auto' takes fp32)"
    say(
        f"torch: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 units: {bf16}"
    )
    if torch.cuda.is_available():
        say(f"  CUDA: {torch.cuda.get_device_name()}")
    else:
        say("  CUDA: none")
