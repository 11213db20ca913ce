"""`rrl doctor`: what this machine offers to a run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rrl import registry
from rrl.registry import UserError

PACKAGES = ("rrl", "torch", "gymnasium", "mlflow")
"""What every run needs, whatever its parts."""
KINDS = {"environment": "environments", "encoder": "encoders"}
"""Kinds of components that say what they need."""
EXAMPLE = "quickstart"
"""The shipped run whose pictures and settings are measured."""
SECONDS = 1.5
"""Of each measurement."""


def report(say: Callable[[str], None]) -> bool:
    """Print the report; False if a run from pixels can't work here."""
    from rrl.config import ginfile

    example: Any = ginfile.load(EXAMPLE)
    say(f"system: {platform.platform()}, Python {platform.python_version()}")
    say(f"versions: {_versions(PACKAGES)}")
    for kind, title in KINDS.items():
        say(f"{title}:")
        for line in _needs(kind):
            say(f"  {line}")
    pixels = _rendering(example, say)
    _torch(say)
    _run_here(example, say)
    from rrl.encoders import weights

    say("weights:")
    for row in weights.rows():
        say(f"  {row}")
    from rrl.demos import sets

    say("demonstrations: " + (", ".join(sets.shipped()) or "none"))
    return pixels


def _versions(packages: tuple[str, ...]) -> str:
    texts = []
    for name in packages:
        try:
            texts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            texts.append(f"{name} NOT INSTALLED")
    return ", ".join(texts)


def _needs(kind: str) -> Iterator[str]:
    """The registered components of a kind, by what they need and what of it is here."""
    users: dict[tuple[str, ...], list[str]] = {}
    for name in registry.names(kind):
        component: Any = registry.get(name)
        users.setdefault(component.packages, []).append(name)
    for packages, names in users.items():
        yield f"{', '.join(names)}: {_versions(packages)}"


def _rendering(example: Any, say: Callable[[str], None]) -> bool:
    from rrl.envs import gl

    gl.choose_backend()
    try:
        say(f"rendering: {gl.renderer()} (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')})")
    except UserError as error:
        say(f"rendering: {error}")
        return False
    from rrl.envs.render import LOOKS  # MuJoCo, after its backend is chosen

    frames = example.encoder.frames()
    for look in reversed(LOOKS):  # the fastest first
        env = registry.build(example.env.filmed((), look)).make_one(frames)
        say(f"  look {look:<9} {_steps_per_second(env):6.0f} steps/s in one process ({frames.size} px)")
    return True


def _steps_per_second(env: Any) -> float:
    """Of a simulated environment with its pictures, which is closed afterwards."""
    import numpy as np

    try:
        env.reset(seed=0)
        action = np.zeros(env.action_space.shape, np.float32)
        env.step(action)
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            env.step(action)
            steps += 1
        return steps / (time.perf_counter() - start)
    finally:
        env.close()


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


def _run_here(example: Any, say: Callable[[str], None]) -> None:
    """What 'auto' and None come to on this machine, and what a GPU would change."""
    import torch

    from rrl.run import placement

    try:
        say(f"a run from pixels here: {placement.in_words(placement.resolve(example))}")
    except UserError as error:
        say(f"a run from pixels here: none, {error}")
    for variable in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        if variable in os.environ:
            say(f"  {variable} is {os.environ[variable]}: it decides the threads where Experiment.threads is None")
    if not torch.cuda.is_available():
        say(
            "  with an NVIDIA GPU: encoder by torch on CUDA (precision 'auto': bf16; compiled, CUDA graphs); "
            "pictures by EGL on the GPU, if the driver's EGL is what libEGL finds"
        )
