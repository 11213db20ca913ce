"""Plugins as if they were installed: a distribution's folder with entry points, on PYTHONPATH."""

import os
import sys
from pathlib import Path

from rrl import registry

TESTS = Path(__file__).resolve().parent.parent


def install(monkeypatch, folder, *modules):
    """Advertise modules of tests/ (such as `plugins.ppo`) in the entry-point group, in a distribution made here."""
    info = folder / "newcomer-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    points = "".join(f"{module.rpartition('.')[2]} = {module}\n" for module in modules)
    (info / "entry_points.txt").write_text(f"[{registry.PLUGIN_GROUP}]\n{points}")
    found_in(monkeypatch, folder, *modules)


def found_in(monkeypatch, folder, *modules):
    """This process finds the distributions in a folder, which advertise these modules, from now on, and so do its
    children, until `monkeypatch` is undone."""
    registry.load_plugins()
    for module in modules:  # registers itself when it is imported
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(TESTS), *sys.path]))
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(registry, "left_out", [])
    monkeypatch.setattr(registry, "_plugins_loaded", False)
