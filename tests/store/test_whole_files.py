"""Whatever goes wrong on the way, no half of a file stands in the next try's way."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.report_runs import make_run

import rrl
from rrl.commands import demos as demo_tools
from rrl.demos import sets
from rrl.evaluators.video import video
from rrl.registry import UserError
from rrl.report.write import write

PACKAGE = Path(rrl.__file__).parent
FRAME = np.zeros((48, 48, 3), np.uint8)
LOGS = {"sweeps/backends.py", "sweeps/child.py"}
"""What these write themselves is read by people alone, while it grows."""
INSIDE = {"demos/lerobot.py"}
"""These write into a folder of `files.making`, which is whole or not there."""


def writes(path: Path) -> list[int]:
    """Lines of a module that write a file by other means than `rrl.store.files`."""
    lines = []
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opened = name == "open" and any(set(mode) <= set("wxab+t") and set(mode) & set("wxa+") for mode in modes)
        if opened or (name in ("write_text", "write_bytes") and not owner.endswith("files")):
            lines.append(call.lineno)
    return lines


def test_one_place_writes_files():
    modules = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    assert {name for name in LOGS if writes(modules[name])} == LOGS, "this looks where it should"
    others = {name: lines for name, path in modules.items() if (lines := writes(path))}
    assert set(others) - {"store/files.py"} == LOGS | INSIDE, others


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyAV's, of the broken encoder
def test_a_video_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(KeyboardInterrupt), video(path) as add:
        add(FRAME)
        raise KeyboardInterrupt
    with pytest.raises(Exception, match="libx264"), video(path) as add:  # an odd side: H.264 takes none
        add(FRAME[:47, :47])
    assert not list(tmp_path.iterdir())
    with video(path) as add:
        add(FRAME)
        assert not list(tmp_path.iterdir())
    assert path.stat().st_size > 500


def test_demonstrations_are_both_files_or_none(tmp_path):
    made = sets.load(sets.shipped()["adroit_door_paper"]).pick([0])
    path = tmp_path / "a.npz"
    with pytest.raises(TypeError, match="JSON"):
        replace(made, facts={**made.facts, "note": object()}).save(path)
    assert not list(tmp_path.iterdir())
    made.save(path)
    assert np.array_equal(sets.load(path).actions, made.actions)


def test_a_report_that_fails_leaves_no_folder(tmp_path):
    root = tmp_path / "runs"
    make_run(root, "aa00")
    out = tmp_path / f"{'a' * 245}.html"  # a name so long that none of its own can stand beside it
    for _ in range(2):
        with pytest.raises(UserError, match="the report can't be written"):
            write([], out, lambda line: None, root=root)
        assert list(tmp_path.iterdir()) == [root]
    write([], tmp_path / "a.html", lambda line: None, root=root)


def test_an_export_to_minari_that_fails_leaves_no_dataset(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    make = minari.create_dataset_from_buffers

    def broken(**settings):
        make(**settings)
        (tmp_path / "minari" / "door" / "a-v0" / "data" / "metadata.json").write_text("{")
        raise OSError("no space left on device")

    source = tmp_path / "one.npz"
    sets.load(sets.shipped()["adroit_door_paper"]).pick([0]).save(source)
    monkeypatch.setattr(minari, "create_dataset_from_buffers", broken)
    for _ in range(2):
        with pytest.raises(UserError, match="no space left"):
            demo_tools.export(str(source), "door/a-v0", lambda line: None)
        assert not (tmp_path / "minari" / "door" / "a-v0").exists()
