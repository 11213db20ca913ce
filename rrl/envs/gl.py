"""The process's OpenGL context: which backend, one context, what renders.

MuJoCo chooses its backend once, while it is being imported; `choose_backend` therefore runs before
every `import mujoco` of this project. This module imports MuJoCo only inside functions.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from rrl.registry import UserError

PACKAGES = "libegl1 libgl1 libegl-mesa0 libgles2"
"""Debian and Ubuntu packages with which pictures are rendered without a screen, on GPU or CPU."""

OFF = ("disable", "disabled", "off", "false", "0")
BACKENDS = ("egl", "glfw", "glx", "osmesa", "enable", "enabled", "on", "true", "1", *OFF)
"""What MUJOCO_GL may be on Linux; `glx` and the words of consent mean GLFW, those of OFF no pictures."""
STEERING = (
    "MUJOCO_EGL_DEVICE_ID",
    "EGL_PLATFORM",
    "LIBGL_DRIVERS_PATH",
    "GALLIUM_DRIVER",
    "MESA_LOADER_DRIVER_OVERRIDE",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
)
"""Variables that decide which device and driver EGL finds."""
_EGL = "libEGL.so.1"
_NO_EGL = "MuJoCo has no EGL library to render pictures with"
_INSTALL = f"On Debian or Ubuntu: sudo apt-get install {PACKAGES}"
_BLIND = "Runs without pictures, from the state alone, need none of this."
_context: Any = None
users: WeakSet[Any] = WeakSet()
"""What lives in the context: each one's `free()` is called before the context goes, at exit."""


def choose_backend() -> None:
    """Set MUJOCO_GL, on Linux and only if unset, so that no screen is needed; one thread for Mesa in worker
    processes. Call before `import mujoco`.

    Without an EGL library, MUJOCO_GL=egl would make `import mujoco` itself fail, so it becomes `disable`:
    runs without pictures still work, and `context` says what is missing. UserError if the user asked for EGL.
    """
    if multiprocessing.parent_process() is not None:
        # A worker: Mesa's software renderer would start threads of its own in each, the same pictures for a fifth
        # to a quarter more processor time (measured).
        os.environ.setdefault("LP_NUM_THREADS", "0")
    if sys.platform != "linux" or "mujoco" in sys.modules:
        return
    asked = _asked()
    if asked and asked not in BACKENDS:
        raise UserError(f"MUJOCO_GL is {asked}, which MuJoCo does not know: it is one of {', '.join(BACKENDS)}")
    if asked == "osmesa" and not _loads("libOSMesa.so.8"):
        raise UserError("MUJOCO_GL is osmesa, but there is no libOSMesa; unset it, or install libosmesa6")
    if asked and asked != "egl":
        return
    library = _loads(_EGL)
    if asked and not library:
        raise UserError(f"MUJOCO_GL is {asked}, but {_NO_EGL}.\n{_INSTALL}\n{_BLIND}\nOr unset MUJOCO_GL.")
    os.environ["MUJOCO_GL"] = "egl" if library else "disable"


def context() -> Any:
    """The process's `mujoco.GLContext`, made on first use; UserError with the remedy if there can be none.

    All pictures of a process share it: a context costs 0.4 s, and switching between several costs time.
    """
    global _context
    if _context is None:
        _load_triton()
        _context = _make()
        # MuJoCo's own exit handler ends EGL; a context freed after that prints a traceback.
        atexit.register(_free)
    return _context


def renderer() -> str:
    """What draws, as the driver names it, such as `llvmpipe (LLVM 15.0.6, 256 bits)`. Makes the context."""
    choose_backend()
    context().make_current()
    try:
        functions = import_module("OpenGL.GL")  # untyped
        name: bytes | None = functions.glGetString(functions.GL_RENDERER)
    except Exception as error:  # PyOpenGL looks for another platform's libraries than MuJoCo draws with
        platform = os.environ.get("PYOPENGL_PLATFORM", "unset")
        raise UserError(f"PyOpenGL can't ask what draws (PYOPENGL_PLATFORM={platform}): {error}") from error
    return name.decode() if name else "unknown"


def need() -> None:
    """UserError, which names the cause, where MuJoCo was told to draw nothing. Makes no context."""
    choose_backend()
    import mujoco

    if not hasattr(mujoco, "GLContext"):
        raise UserError(f"pictures cannot be rendered: {_without()}\n{_BLIND}")


def _make() -> Any:
    """A `mujoco.GLContext` that draws, and is current: whatever needs pictures comes by here. UserError names the
    cause."""
    need()
    import mujoco

    with warnings.catch_warnings(record=True) as caught:  # GLFW warns where others raise
        warnings.simplefilter("always")
        try:
            made = mujoco.GLContext(64, 64)
            made.make_current()
        except Exception as error:  # every backend fails in its own way
            reason = str(error) or type(error).__name__
        else:
            if getattr(made, "_context", True):  # GLFW's holds None where no window could be opened
                return made
            reason = str(caught[0].message) if caught else "no window could be opened"
    backend = mujoco.GLContext.__module__.rpartition(".")[2]
    raise UserError(f"no OpenGL context could be made through {backend}: {reason}\n{_remedy(backend)}\n{_BLIND}")


def _without() -> str:
    """Why MuJoCo was imported without a renderer, and what to do."""
    asked, platform = _asked(), os.environ.get("PYOPENGL_PLATFORM", "")
    if asked in OFF and sys.platform == "linux" and not _loads(_EGL):  # ours, or the user's who would have none
        return f"{_NO_EGL} (MUJOCO_GL={asked}).\n{_INSTALL}"
    if asked in OFF:
        return f"MUJOCO_GL is {asked}, which turns them off. Unset MUJOCO_GL."
    backend = asked if asked in ("egl", "osmesa") else "glfw"
    if backend != "glfw" and platform.lower() not in ("", backend):
        return f"PYOPENGL_PLATFORM is {platform}, but MuJoCo draws through {backend}. Unset PYOPENGL_PLATFORM."
    reason = "MuJoCo was imported without a renderer"
    try:
        import_module(f"mujoco.{backend}")
    except Exception as error:  # which MuJoCo kept to itself
        reason = f"{type(error).__name__}: {error}"
    return f"MUJOCO_GL is {asked or 'unset'}, and {backend} cannot be used ({reason})."


def _remedy(backend: str) -> str:
    """What to do about a backend that is there and can't draw."""
    asked = _asked()
    if sys.platform == "linux" and backend == "glfw":
        cause = f"MUJOCO_GL is {asked}" if asked not in ("", "egl") else "MuJoCo was imported before rrl"
        remedy = "unset it" if asked not in ("", "egl") else "import rrl.envs first, or set MUJOCO_GL=egl before"
        return f"{cause}, and GLFW needs a screen: {remedy}. EGL needs none."
    # MuJoCo sets PYOPENGL_PLATFORM itself; PyOpenGL takes it in lower case alone.
    steering = {name: os.environ.get(name, "") for name in (*STEERING, "PYOPENGL_PLATFORM")}
    told = ", ".join(f"{name}={value}" for name, value in steering.items() if value not in ("", backend))
    if told:
        return f"Which device and driver are taken is decided by {told}: try without."
    return f"MUJOCO_GL is {asked or 'unset'}. {_INSTALL}"


def _asked() -> str:
    """MUJOCO_GL as MuJoCo reads it; empty: unset."""
    return os.environ.get("MUJOCO_GL", "").strip().lower()


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _load_triton() -> None:
    """Load triton's library, if installed, before Mesa's. Both bring an LLVM, and triton's crashes
    the process when it comes second (torch imports triton at odd moments, such as the first Adam)."""
    spec = find_spec("triton")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        _loads(f"{folder}/_C/libtriton.so")


def _free() -> None:
    global _context
    for user in list(users):
        user.free()
    _context.free()
    _context = None
