"""A sweep's file."""

import pytest

from rrl.store import results
from rrl.sweeps.state import SweepFolder

DAMAGED = ("", "{", "[]", "{}", '{"name": 3}', '{"name": "a", "started": null}', "\0")


def test_damaged_ones_stop_no_other_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SweepFolder.open("a") as first:
        for i, text in enumerate(DAMAGED):
            (results.ROOT / f"{i}").mkdir()
            (results.ROOT / f"{i}" / "sweep.json").write_text(text)
    with pytest.warns(UserWarning) as told, SweepFolder.open("a") as again:
        assert again.folder == first.folder
    for i, text in enumerate(DAMAGED):
        assert any(f"/{i}/sweep.json is damaged" in str(warning.message) for warning in told)
        assert (results.ROOT / f"{i}" / "sweep.json").read_text() == text
