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
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from rrl.registry import UserError

PACKAGES = "libegl1 libgl1 libegl-mesa0 libgles2"
"""Debian and Ubuntu packages with which pictures are rendered without a screen, on GPU or CPU."""

BACKENDS = (
    "egl",
    "glfw",
    "glx",
    "osmesa",
    "cgl",
    "wgl",
    "enable",
    "enabled",
    "on",
    "true",
    "1",
    "disable",
    "disabled",
    "off",
    "false",
    "0",
)
_NO_EGL = "MuJoCo has no EGL library to render pictures with"
_HELP = (
    f"On Debian or Ubuntu: sudo apt-get install {PACKAGES}\n"
    "Runs without pictures, from the state alone, need none of this."
)
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
    asked = os.environ.get("MUJOCO_GL")
    if asked and asked.lower() not in BACKENDS:
        raise UserError(f"MUJOCO_GL is {asked}, which MuJoCo does not know: it is one of {', '.join(BACKENDS)}")
    if asked and asked.lower() == "osmesa" and not _loads("libOSMesa.so.8"):
        raise UserError("MUJOCO_GL is osmesa, but there is no libOSMesa; unset it, or install libosmesa6")
    if asked and asked.lower() != "egl":
        return
    library = _loads("libEGL.so.1")
    if asked and not library:
        raise UserError(f"MUJOCO_GL is {asked}, but {_NO_EGL}.\n{_HELP}\nOr unset MUJOCO_GL.")
    os.environ["MUJOCO_GL"] = "egl" if library else "disable"


def context() -> Any:
    """The process's `mujoco.GLContext`, made on first use; UserError with the remedy if there can be none.

    All pictures of a process share it: a context costs 0.4 s, and switching between several costs time.
    """
    global _context
    if _context is None:
        _load_triton()
        import mujoco

        if not hasattr(mujoco, "GLContext"):
            backend = os.environ.get("MUJOCO_GL", "")
            raise UserError(f"pictures cannot be rendered: {_NO_EGL} (MUJOCO_GL={backend}).\n{_HELP}")
        try:
            _context = mujoco.GLContext(64, 64)
            _context.make_current()
        except Exception as error:  # every backend fails in its own way
            backend = os.environ.get("MUJOCO_GL", "unset")
            reason = str(error) or type(error).__name__
            raise UserError(f"no OpenGL context could be made (MUJOCO_GL={backend}): {reason}\n{_HELP}") from error
        # MuJoCo's own exit handler ends EGL; a context freed after that prints a traceback.
        atexit.register(_free)
    return _context


def renderer() -> str:
    """What draws, as the driver names it, such as `llvmpipe (LLVM 15.0.6, 256 bits)`. Makes the context."""
    choose_backend()
    context().make_current()
    functions = import_module("OpenGL.GL")  # untyped
    name: bytes | None = functions.glGetString(functions.GL_RENDERER)
    if name is None:
        raise UserError(f"MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')} gives no OpenGL context.\n{_HELP}")
    return name.decode()


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
