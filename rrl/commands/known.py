"""Names of components and their settings without importing what makes them: completion in a shell must be quick."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from rrl import registry
from rrl.machine.paths import caches
from rrl.store import files


def components() -> dict[str, list[str]]:
    """Component -> its fields: as kept of the last time, or asked anew once code of rrl or of a plugin has changed,
    which takes as long as `rrl list`."""
    path, code = caches() / "components.json", _code()
    kept = files.read_json(path)
    if kept.get("code") == code:
        fields: dict[str, list[str]] = kept["components"]
        return fields
    fields = {name: list(registry.get(name).Config.model_fields) for name in registry.names()}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"code": code, "components": fields})
    return fields


def _code() -> str:
    """A checksum of names, sizes and times of all files that may register a component."""
    points = sorted((point.name, point.value) for point in entry_points(group=registry.PLUGIN_GROUP))
    packages = dict.fromkeys(["rrl", *(value.partition(":")[0].partition(".")[0] for _, value in points)])
    digest = hashlib.sha256(repr(points).encode())
    for package in packages:
        for path in _files(package):
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _files(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        yield from sorted(Path(folder).rglob("*.py"))
    if spec.origin and not spec.submodule_search_locations:
        yield Path(spec.origin)
