"""Policy files by name: those that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rrl.machine.paths import expanded, unusable
from rrl.registry import UserError
from rrl.store.files import shipped_first


def shipped() -> dict[str, Path]:
    """Name -> file of the policies that come with the package: state experts, and pixel policies."""
    folder = Path(str(files("rrl"))) / "data"
    paths = [*folder.glob("experts/*.safetensors"), *folder.glob("policies/*.safetensors")]
    return {path.stem: path for path in sorted(paths)}


def find(source: str | Path) -> Path:
    """The policy file that a path, its own or that of a folder which holds it, or the name of a shipped policy means;
    UserError if there is none."""
    known = shipped()
    path = shipped_first(str(source), known, expanded(source))
    if path.is_dir():
        path /= "policy.safetensors"
    if why := unusable(path):
        raise UserError(
            f"{why}, nor a shipped policy of that name ({', '.join(known)}); "
            "runs write policy.safetensors and best_policy.safetensors"
        )
    return path
