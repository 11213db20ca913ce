"""Plugins as if they were installed: a distribution's folder with entry points, on PYTHONPATH."""

import os
import sys
from importlib import import_module
from pathlib import Path

from rrl import registry

TESTS = Path(__file__).resolve().parent.parent


def install(monkeypatch, folder, *modules):
    """Advertise modules (such as `plugins.ppo`) in the entry-point group, for this process and its children."""
    info = folder / "newcomer-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    points = "".join(f"{module.rpartition('.')[2]} = {module}\n" for module in modules)
    (info / "entry_points.txt").write_text(f"[{registry.PLUGIN_GROUP}]\n{points}")
    paths = [str(folder), str(TESTS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.load_plugins()  # the built-in ones, and what is really installed
    if str(TESTS) not in sys.path:
        monkeypatch.syspath_prepend(str(TESTS))
    # As `load_plugins` would find them at the start of a process.
    monkeypatch.setattr(registry, "_plugins_loaded", False)
    for module in modules:
        sys.modules.pop(module, None)
        import_module(module)
