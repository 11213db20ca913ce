"""What the Adroit environments draw, and the OpenGL context that they draw with."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.adroit import SMALL, TASKS, actions, make

from rrl.envs.base import FrameRequest


@pytest.mark.parametrize("task", TASKS)
def test_frames_fill_the_callers_buffer_in_place(task):
    cameras = 3 if task == "relocate" else 1
    env, plain = make(task, SMALL, look="fast"), make(task, SMALL, look="fast")
    memory = np.zeros((2, 64, 64, 3 * cameras), np.uint8)
    env.frame_buffer = memory[1]
    observation, _ = env.reset(seed=0)
    assert np.shares_memory(observation["frames"], memory)
    first = memory.copy()
    assert not first[0].any() and first[1].any()
    plain_first = plain.reset(seed=0)[0]["frames"]
    np.testing.assert_array_equal(first[1], plain_first)
    for action in actions(env, 30):
        env.step(action)
        last = plain.step(action)[0]["frames"]
    np.testing.assert_array_equal(memory[1], last)
    np.testing.assert_array_equal(first[1], plain_first)  # without a buffer every observation has its own
    assert (memory[1] != first[1]).any() and not memory[0].any()
    with pytest.raises(ValueError, match="frame buffer must be uint8"):
        env.frame_buffer = np.zeros((64, 64, 4), np.uint8)


def test_environments_share_one_canvas_and_draw_their_own_scene():
    one, two = make("door", SMALL, look="fast"), make("door", SMALL, look="fast")
    assert one._view._canvas is two._view._canvas
    a, b = one.reset(seed=1)[0]["frames"], two.reset(seed=2)[0]["frames"]
    assert (a != b).any()
    one.render()  # another canvas, in between
    np.testing.assert_array_equal(make("door", SMALL, look="fast").reset(seed=1)[0]["frames"], a)
    one.close()
    np.testing.assert_array_equal(two.reset(seed=1)[0]["frames"], a)


@pytest.mark.parametrize(("task", "look"), [*((task, "fast") for task in TASKS), ("door", "default")])
def test_the_narrow_view_is_the_centre_crop(task, look):
    crop = make(task, FrameRequest(224, 256), look=look).reset(seed=0)[0]["frames"].astype(float)
    whole = make(task, FrameRequest(256, 256), look=look).reset(seed=0)[0]["frames"].astype(float)
    error = np.mean((crop - whole[16:240, 16:240]) ** 2)
    assert error < 255**2 / 10**4.5  # PSNR above 45 dB
    assert np.mean((crop - whole[:224, :224]) ** 2) > 20 * (error + 1)


def test_looks_differ_and_fast_has_no_shadows():
    looks = {
        look: make("pen", FrameRequest(128, 128), look=look).reset(seed=0)[0]["frames"].astype(int)
        for look in ("default", "balanced", "fast")
    }
    assert (looks["default"] != looks["balanced"]).any()
    # Shadows make the pale table dark; without them the table's pixels stay pale.
    table = looks["fast"].min(axis=-1) > 120
    for look in ("default", "balanced"):
        darker = (looks[look].max(axis=-1) < 90) & table
        assert darker.sum() > 100, look


def moved(task, camera, change, **settings):
    """Where a camera's picture changes with qpos: row and column of the changed pixels' centre, 0 to 1."""
    env = make(task, FrameRequest(96, 96), look="fast", cameras=(camera,), **settings)
    before = env.reset(seed=0)[0]["frames"].astype(int)
    qpos, qvel = env.physics()
    change(qpos)
    after = env.show(qpos, qvel)["frames"].astype(int)
    rows, columns = np.nonzero(np.abs(after - before).sum(-1) > 30)
    assert len(rows) > 10
    return rows.mean() / 96, columns.mean() / 96


def put(joint, value):
    def change(qpos):
        qpos[joint] = value

    return change


def test_top_cameras_show_the_hand_at_the_image_top():
    hand = slice(8, 20)
    assert moved("door", "top", put(hand, 1.0))[0] < 0.45
    assert moved("door", "top", put(-2, 1.0))[0] > 0.6  # the door
    assert moved("hammer", "top", put(hand, 1.0))[0] < 0.45
    assert moved("hammer", "top", put(26, 0.09))[0] > moved("hammer", "top", put(hand, 1.0))[0]  # the nail
    # The stock camera looks from behind the hand instead.
    assert moved("door", "vil_camera", put(hand, 1.0))[0] > 0.45


def ball(env, at):
    """(row, column) of the ball in each camera's picture, from its red pixels."""
    env.reset(options={"initial": {**env.initial(), "obj_pos": np.array(at)}})
    frames = env._observation["frames"].astype(int)
    centres = []
    for c in range(3):
        red, green, blue = np.moveaxis(frames[..., 3 * c : 3 * c + 3], -1, 0)
        rows, columns = np.nonzero((red > 60) & (green < 0.3 * red) & (blue < 0.3 * red))
        assert len(rows) > 5, f"camera {c + 1} does not show the ball"
        centres.append((rows.mean(), columns.mean()))
    return np.array(centres)


def test_relocate_cameras_show_the_red_ball_even_through_the_table():
    env = make("relocate", FrameRequest(112, 128), look="fast")
    env.reset(seed=0)
    middle, right = ball(env, (0, 0.1, 0.035)), ball(env, (0.1, 0.1, 0.035))
    back, up = ball(env, (0, 0.2, 0.035)), ball(env, (0, 0.1, 0.135))
    # cam1 looks up from below, +y up in its picture, so +x is to its left.
    assert right[0][1] < middle[0][1] - 3 and back[0][0] < middle[0][0] - 3
    # cam2 looks along -y, +z up; cam3 along -x, +z up, so +y is to its right.
    assert right[1][1] < middle[1][1] - 3 and up[1][0] < middle[1][0] - 3
    assert back[2][1] > middle[2][1] + 3 and up[2][0] < middle[2][0] - 3
    stock = make("relocate", SMALL, protocol="stock", look="fast").reset(seed=0)[0]["frames"]
    paper = env.reset(seed=0)[0]["frames"]
    # Black background without a table: most of the paper's picture, little of the stock one.
    assert (paper[..., :3].max(-1) < 5).mean() > 0.8 and (stock.max(-1) < 5).mean() < 0.6


def test_render_is_for_people():
    fast = make("hammer", SMALL, look="fast")
    blind = make("hammer")
    fast.reset(seed=0)
    blind.reset(seed=0)
    picture = fast.render()
    assert picture.shape == (480, 480, 3) and picture.std() > 30
    np.testing.assert_array_equal(picture, blind.render())  # whatever the look


# The context


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


USE = """
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.registry import UserError
factory = Adroit(Adroit.Config(task="pen", look="fast"))
print(factory.make_one(None).reset(seed=0)[0]["state"].shape)
try:
    env = factory.make_one(FrameRequest(32, 32))
    print(env.reset(seed=0)[0]["frames"].shape, env.render().shape)
    from rrl.envs import gl
    print(gl.renderer())
except UserError as error:
    print("UserError:", error)
"""


def test_a_process_that_drew_pictures_ends_without_noise():
    done = run(USE)
    assert done.returncode == 0 and done.stderr == ""
    state, frames, renderer = done.stdout.splitlines()
    assert (state, frames) == ("(24,)", "(32, 32, 3) (480, 480, 3)") and renderer


def test_without_opengl_only_pictures_are_refused():
    missing = "from rrl.envs import gl; gl._loads = lambda library: False\n"  # as on a machine without the packages
    done = run(missing + USE, MUJOCO_GL="")
    assert done.returncode == 0
    assert done.stdout.startswith("(24,)\nUserError: pictures cannot be rendered: MuJoCo has no EGL library")
    assert "apt-get install libegl1 libgl1 libegl-mesa0 libgles2" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux only")
def test_the_backend_is_chosen_on_linux_and_only_if_unset():
    code = "import os; from rrl.envs import gl; {}gl.choose_backend(); print(os.environ['MUJOCO_GL'])"
    assert run(code.format(""), MUJOCO_GL="").stdout.strip() == "egl"
    assert run(code.format(""), MUJOCO_GL="glfw").stdout.strip() == "glfw"
    assert "which MuJoCo does not know" in run(code.format(""), MUJOCO_GL="foo").stderr
    missing = "gl._loads = lambda library: False; "  # as on a machine without the packages
    assert run(code.format(missing), MUJOCO_GL="").stdout.strip() == "disable"
    refused = run(code.format(missing), MUJOCO_GL="egl")
    assert refused.returncode == 1 and "apt-get install" in refused.stderr


def test_mesa_gets_no_threads_of_its_own_in_workers_alone(tmp_path):
    (tmp_path / "probe.py").write_text(
        "import multiprocessing, os\n"
        "from rrl.envs import gl\n"
        "def show():\n"
        "    gl.choose_backend()\n"
        "    print(os.environ.get('LP_NUM_THREADS'), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    show()\n"
        "    worker = multiprocessing.get_context('forkserver').Process(target=show)\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    for given, wanted in ({}, ["None", "0"]), ({"LP_NUM_THREADS": "2"}, ["2", "2"]):
        env = {name: value for name, value in os.environ.items() if name != "LP_NUM_THREADS"} | given
        done = subprocess.run(
            [sys.executable, "probe.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.split() == wanted
