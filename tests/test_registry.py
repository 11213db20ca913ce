"""The registry: what may be registered, and how configs become components."""

from __future__ import annotations

import abc
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pydantic
import pytest

from rrl import registry
from rrl.registry import Component


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch):
    """An empty registry that imports no built-in components."""
    monkeypatch.setattr(registry, "_components", {})
    monkeypatch.setattr(registry, "left_out", [])
    monkeypatch.setattr(registry, "_plugins_loaded", False)
    monkeypatch.setattr(registry, "BUILT_IN", ())
    monkeypatch.setattr(registry, "entry_points", lambda group: [])


class Lens(Component):
    kind: ClassVar[str] = "encoder"

    class Config(Component.Config):
        """Settings."""

        zoom: float = 1.0
        """Magnification."""

    def __init__(self, config: Lens.Config, cameras: int = 1) -> None:
        self.config, self.cameras = config, cameras


class Goal(Component):
    kind: ClassVar[str] = "evaluator"

    class Config(Component.Config):
        pass


def test_register_get_names_build():
    assert registry.register(Lens) is Lens
    registry.register(Goal)
    assert registry.get("Lens") is Lens and Lens.Config.component is Lens
    assert registry.names() == ["Goal", "Lens"]
    assert registry.names("encoder") == ["Lens"] and registry.names("agent") == []
    built = registry.build(Lens.Config(zoom=2.0), cameras=3)
    assert isinstance(built, Lens) and (built.config.zoom, built.cameras) == (2.0, 3)
    with pytest.raises(KeyError):
        registry.get("Nothing")


def test_registering_the_same_class_again_is_fine_and_another_of_its_name_is_not():
    registry.register(Lens)
    registry.register(Lens)
    config = type("Config", (Component.Config,), {})
    other = type("Lens", (Component,), {"kind": "agent", "Config": config, "__module__": "elsewhere"})
    with pytest.raises(ValueError, match="Lens is already registered"):
        registry.register(other)


def test_register_refuses_what_is_no_component():
    with pytest.raises(ValueError, match="needs a nested `class Config"):
        registry.register(type("Bare", (Lens,), {}))
    with pytest.raises(ValueError, match="it has no kind"):
        registry.register(type("Kindless", (Component,), {"Config": type("Config", (Component.Config,), {})}))
    with pytest.raises(ValueError, match="it has no kind"):
        registry.register(
            type("Odd", (Component,), {"kind": "lense", "Config": type("Config", (Component.Config,), {})})
        )
    assert registry.names() == []


def test_configs_are_strict_immutable_and_documented():
    config = Lens.Config(zoom=1)
    assert config.zoom == 1.0 and isinstance(config.zoom, float) and hash(config) == hash(Lens.Config())
    with pytest.raises(pydantic.ValidationError):
        config.zoom = 3.0
    for wrong in ("1", True, float("inf"), float("nan"), None):
        with pytest.raises(pydantic.ValidationError):
            Lens.Config(zoom=wrong)
    with pytest.raises(pydantic.ValidationError):
        Lens.Config(zom=1.0)
    assert Lens.Config.model_fields["zoom"].description == "Magnification."


def test_plugins_are_loaded_once_from_the_entry_point_group(monkeypatch: pytest.MonkeyPatch):
    loaded = []

    class Point:
        module = __name__

        def load(self) -> None:
            loaded.append(registry.register(Goal))

    asked = []

    def entry_points(group: str) -> list[Point]:
        asked.append(group)
        return [Point()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert registry.names() == ["Goal"]
    assert registry.get("Goal") is Goal
    assert loaded == [Goal] and asked == ["rrl.components"]


def test_importing_the_registry_is_light():
    code = "import sys, rrl.registry; assert not {'torch', 'gin', 'numpy', 'mlflow'} & set(sys.modules)"
    root = Path(registry.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_what_lacks_something_is_not_registered():
    class Abstract(Component):
        kind: ClassVar[str] = "agent"

        class Config(Component.Config):
            @abc.abstractmethod
            def wants(self): ...

    class Mine(Abstract):
        class Config(Abstract.Config):
            pass

    with pytest.raises(ValueError, match="Mine lacks what its base asks for: wants"):
        registry.register(Mine)


def test_a_broken_plugin_is_told_and_left_out(monkeypatch, capsys):
    broken = metadata.EntryPoint("mine", "no_such_module_anywhere", registry.PLUGIN_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    assert registry.names() == []
    told = capsys.readouterr().err
    assert "the plugin mine = no_such_module_anywhere is left out: ModuleNotFoundError" in told


def test_whatever_a_plugin_does_when_imported_is_told_with_its_name(monkeypatch, capsys, tmp_path):
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "warns.py").write_text("import warnings\nwarnings.warn('odd thing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [metadata.EntryPoint(name, name, registry.PLUGIN_GROUP) for name in ("leaves", "warns")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert registry.names() == []
    told = capsys.readouterr().err
    assert "the plugin leaves = leaves is left out: SystemExit: 3" in told
    assert "the plugin warns = warns says: odd thing" in told and "UserWarning" not in told
    assert "the plugin warns = warns registers no component: is `@register` missing above its class?" in told
    assert "leaves registers" not in told


def test_a_plugins_code_has_a_checksum_and_ours_none():
    from rrl.encoders.state import State

    assert registry.source_of(State) == ""
    assert len(registry.source_of(Lens)) == 12


def test_a_plugins_checksum_is_of_its_whole_package(tmp_path, monkeypatch):
    package = tmp_path / "shared_namespace" / "bodies"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("from .arm import Arm")
    (package / "arm.py").write_text("class Arm: pass")
    (package / "models" / "arm.xml").write_text("<mujoco/>")
    (tmp_path / "legs.py").write_text("from rrl.encoders.state import State\nclass Legs(State): pass")
    (tmp_path / "feet.py").write_text("from legs import Legs\nclass Feet(Legs): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    arm = importlib.import_module("shared_namespace.bodies").Arm
    feet = importlib.import_module("feet").Feet
    seen = [registry.source_of(arm)]
    (package / "results.txt").write_text("what it wrote")
    assert registry.source_of(arm) == seen[0]
    for name in ("helper.py", "models/arm.xml", "arm.py"):
        (package / name).write_text(f"other {name}")
        seen.append(registry.source_of(arm))
    assert len(set(seen)) == 4
    before = registry.source_of(feet)
    (tmp_path / "legs.py").write_text("another base")
    assert registry.source_of(feet) != before
