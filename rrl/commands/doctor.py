"""`rrl doctor`: what this machine offers to a run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

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
    _run_here(say)
    from rrl.encoders import weights

    say("weights:")
    for row in weights.rows():
        say(f"  {row}")
    from rrl.demos import sets

    say("demonstrations: " + (", ".join(sets.shipped()) or "none"))
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

    from rrl.encoders import backends
    from rrl.encoders.base import cpu_has_bf16

    cpu = torch.cpu.get_capabilities()
    bf16 = "yes" if cpu_has_bf16() else "no (precision 'auto' takes fp32)"
    int8 = "yes" if cpu.get("avx512_vnni") or cpu.get("avx_vnni") or cpu.get("amx_int8") else "no (int8 gains less)"
    say(
        f"torch: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 units: {bf16}, int8 units: {int8}"
    )
    say(f"  CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    for backend in backends.registered():
        missing = sorted({package for p in backend.precisions for package in backend.missing(p)})
        here = f"without {', '.join(missing)} ({backend.install})" if missing else version(backend.name)
        say(f"  backend {backend.name}: {here}; {', '.join(backend.precisions)} on {', '.join(backend.devices)}")


def _run_here(say: Callable[[str], None]) -> None:
    """What 'auto' and None come to on this machine, and what a GPU would change."""
    import torch

    from rrl.config import ginfile
    from rrl.run import placement

    loaded: Any = ginfile.load("adroit_door_mobilenetv2")
    say(f"a run from pixels here: {placement.in_words(placement.resolve(loaded))}")
    if not torch.cuda.is_available():
        say(
            "  with an NVIDIA GPU: encoder by torch on CUDA (precision 'auto': bf16; compiled, CUDA graphs); "
            "pictures by EGL on the GPU, if the driver's EGL is what libEGL finds"
        )
