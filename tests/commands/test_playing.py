"""`rrl play`: the episodes that an evaluation runs, seen through other cameras."""

import re
import subprocess
import sys
from collections import Counter

import imageio.v3 as iio
import pytest
from typer.testing import CliRunner

from rrl.cli import app

SMALL = ("--look", "fast", "--size", "64", "--episodes", "1")


def play(*words):
    done = CliRunner().invoke(app, ["play", *words])
    return done.exit_code, " ".join(done.output.split())


def test_a_policy_is_filmed_through_any_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = play("adroit_pen_expert", "--out", "pen.mp4", "--camera", "fixed", "--camera", "vil_camera", *SMALL)
    assert code == 0 and "pen.mp4: 1 episodes (success), 26 frames" in said, said
    film = iio.imread("pen.mp4", plugin="pyav")
    assert film.shape == (26, 64, 128, 3)
    assert (abs(film[0, 24:, :64].astype(int) - film[0, 24:, 64:]) > 30).mean() > 0.1  # two views
    assert (abs(film[0].astype(int) - film[-1]) > 30).mean() > 0.01  # something moved
    code, said = play("adroit_pen_expert", "--out", "pen.mp4", *SMALL)
    assert code == 2 and "pen.mp4 exists already" in said


def test_a_policy_is_recorded_for_rerun(tmp_path, monkeypatch):
    pytest.importorskip("rerun")
    monkeypatch.chdir(tmp_path)
    code, said = play("adroit_pen_expert", "--out", "pen.rrd", "--camera", "fixed", "--camera", "vil_camera", *SMALL)
    assert code == 0 and "pen.rrd: 1 episodes (success); look at it with: rerun pen.rrd" in said, said
    assert play("adroit_pen_expert", "--out", "pen.rrd", *SMALL)[0] == 2  # it exists already
    shown = [sys.executable, "-m", "rerun", "rrd", "print", "pen.rrd"]
    told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    rows = Counter()
    for count, entity in re.findall(r"with (\d+) rows .* - /episode_1/(\S+) - ", told):
        rows[entity] += int(count)
    pictures = {"cameras/fixed": 26, "cameras/vil_camera": 26}  # in every fourth of the steps 0 to 100
    assert rows == pictures | dict.fromkeys(("state", "action", "reward", "flags/success", "flags/success_rrl"), 100)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "there is no screen for a window (no DISPLAY): name a video to write, --out play.mp4"),
        (("--out", "x.avi"), "a video is an .mp4, a recording for Rerun an .rrd; got x.avi"),
        (("--out", "x.mp4", "--size", "63"), "a video's sides are even numbers"),
        (("--out", "x.mp4", "--camera", "sky"), "pen has no camera 'sky'"),
    ],
)
def test_what_cannot_be_shown_is_told(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, said = play("adroit_pen_expert", *words)
    assert code == 2 and told in said
    assert not list(tmp_path.iterdir())
