"""Why pictures can't be drawn: the variable that is in the way is named, whichever way led to the context."""

import functools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rrl.envs import gl
from rrl.registry import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux only")

WAYS = """
from rrl.envs import Adroit, DMControl, FrameRequest, gl
from rrl.registry import UserError

def picture():
    Adroit(Adroit.Config(task="pen", look="fast")).make_one(FrameRequest(16, 16)).reset(seed=0)

def film():
    env = DMControl(DMControl.Config(domain="cartpole", task="swingup")).make_one(None)
    env.reset(seed=0)
    env.render()

def context():
    gl.choose_backend()
    gl.context()

for way in (picture, film, gl.renderer, context) * 2:
    try:
        print("drawn:", way())
    except UserError as error:
        print(error)
"""
SCREEN = "and GLFW needs a screen"


def run(code, **environment):
    screenless = {"MUJOCO_GL": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    environment = {**os.environ, **screenless, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


@functools.cache
def mesa():
    """Does Mesa's software renderer draw here?"""
    return "llvmpipe" in run("from rrl.envs import gl; print(gl.renderer())").stdout


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MUJOCO_GL", "off", "MUJOCO_GL is off, which turns them off. Unset MUJOCO_GL."),
        ("MUJOCO_GL", "Disable", "MUJOCO_GL is disable, which turns them off. Unset MUJOCO_GL."),
        ("MUJOCO_GL", "glfw", f"MUJOCO_GL is glfw, {SCREEN}: unset it. EGL needs none."),
        ("MUJOCO_GL", "on", f"MUJOCO_GL is on, {SCREEN}: unset it."),
        ("MUJOCO_GL", "cgl", "MUJOCO_GL is cgl, which MuJoCo does not know: it is one of egl, glfw, glx, osmesa"),
        ("PYOPENGL_PLATFORM", "osmesa", "PYOPENGL_PLATFORM is osmesa, but MuJoCo draws through egl. Unset PYOPENGL_"),
        ("PYOPENGL_PLATFORM", "EGL", "decided by PYOPENGL_PLATFORM=EGL: try without"),
        ("MUJOCO_EGL_DEVICE_ID", "x", "decided by MUJOCO_EGL_DEVICE_ID=x: try without"),
        ("LIBGL_DRIVERS_PATH", "/nowhere", "decided by LIBGL_DRIVERS_PATH=/nowhere: try without"),
    ],
)
def test_the_variable_in_the_way_is_named(variable, value, told):
    """By every way to a context, the first time and the second, and nobody is sent to apt-get."""
    if variable == "LIBGL_DRIVERS_PATH" and not mesa():
        pytest.skip("a variable of Mesa's")
    done = run(WAYS, **{variable: value})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(told) == 8, done.stdout
    assert "drawn" not in done.stdout and "apt-get" not in done.stdout
    assert "Traceback" not in done.stderr and ".py" not in done.stderr  # nor a warning of Python's


def test_blanks_and_capitals_are_read_as_mujoco_reads_them():
    done = run(WAYS, MUJOCO_GL=" EGL ")
    assert done.stdout.count("drawn") == 8, done.stdout + done.stderr


def test_mujoco_that_came_first_is_named():
    done = run("import mujoco\n" + WAYS)
    assert done.stdout.count(f"MuJoCo was imported before rrl, {SCREEN}: import rrl.envs first") == 8, done.stderr


def test_a_library_that_is_not_there_is_named_with_its_package():
    done = run("from rrl.envs import gl; gl._loads = lambda library: False\n" + WAYS)
    assert done.stdout.count("MuJoCo has no EGL library") == 8, done.stderr
    assert f"apt-get install {gl.PACKAGES}" in done.stdout


@pytest.mark.parametrize(("backend", "package"), [("egl", "OpenGL"), ("glfw", "glfw")])
def test_a_python_package_that_is_not_there_is_named(backend, package):
    """MuJoCo keeps it to itself, and has no renderer."""
    done = run(f"import sys; sys.modules[{package!r}] = None\n" + WAYS, MUJOCO_GL=backend)
    assert done.stdout.count(f"MUJOCO_GL is {backend}, and {backend} cannot be used (ModuleNotFoundError: ") == 8
    assert f"{package}" in done.stdout and "Traceback" not in done.stderr


def test_a_driver_that_pyopengl_cannot_ask_is_told(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    monkeypatch.setattr(gl, "_context", SimpleNamespace(make_current=lambda: None))
    monkeypatch.setattr(gl, "import_module", lambda name: SimpleNamespace())  # as PyOpenGL of another platform
    with pytest.raises(UserError, match="PYOPENGL_PLATFORM=osmesa"):
        gl.renderer()


def test_a_run_that_could_not_draw_is_refused_before_anything_is_made(tmp_path):
    words = [sys.executable, "-m", "rrl", "run", "adroit_door_mobilenetv2"]
    environment = {**os.environ, "MUJOCO_GL": "off"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "MUJOCO_GL is off" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
