"""The packages that gymnasium's environments come from: whose one is, how it is installed, and known faults that keep
environments from running beside the MuJoCo of today.

A fault is found by what it does, not by a version, and mended in the process that makes such an environment: only
what the package itself sees is replaced, never MuJoCo.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium

from rrl.registry import UserError

INSTALL = {"metaworld": "pip install 'rrl[metaworld]'", "gymnasium_robotics": "pip install gymnasium-robotics"}
"""How to get a module that an environment's id names."""


def spec_of(name: str) -> Any:
    """gymnasium's description of a registered environment; the module before a colon is imported. UserError, with a
    hint on its second line, if there is none."""
    module, _, short = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        here = any(path.exists() for path in (Path(f"{module}.py"), Path(module, "__init__.py")))
        how = "install it (`pip install -e .` where its pyproject.toml is), or put PYTHONPATH=. before the command"
        how = how if here else INSTALL.get(module, "install it")
        raise UserError(f"{name!r} needs the module {module}, which can't be imported ({error})\n{how}") from error
    try:
        return gymnasium.spec(short)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(short, gymnasium.registry, 1)
        hint = f"did you mean {installed(near[0], None)!r}?" if near else ""
        other = "" if module else "environments of other packages are named 'module:Name-v1'"
        raise UserError(f"gymnasium knows no environment {name!r}\n{hint or other}") from error


def package_of(name: str) -> str:
    """The package whose code makes an environment."""
    entry = spec_of(name).entry_point
    return str(entry if isinstance(entry, str) else getattr(entry, "__module__", "")).split(".")[0].split(":")[0]


ELSEWHERE = (
    "say with --task what to replay it in: a task, an id of gymnasium's, or a gin file that sets `Experiment.env`"
)


def installed(name: str, entry_point: Any) -> str:
    """The name by which an environment that a file describes can be had: of gymnasium, or of an installed package made
    for gymnasium, the only ones that are imported because a file says so. UserError if it is neither's."""
    known = gymnasium.registry.get(name)
    entry = entry_point if known is None else known.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    package = module.partition(".")[0]
    owners = _distributions().get(package, ())
    if known is not None:  # another process finds it by its module alone
        return name if package == "gymnasium" else f"{package if owners else module}:{name}"
    needs = [need for owner in owners for need in importlib.metadata.requires(owner) or ()]
    if ":" not in name and any(need.lower().startswith("gymnasium") for need in needs):
        spec_of(f"{package}:{name}")
        return f"{package}:{name}"
    comes = f"; it comes from the package {package!r}, which must be installed" if package else ""
    raise UserError(f"gymnasium knows no environment {name!r} here{comes}\n{ELSEWHERE}")


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Per top-level package the installed distributions that it comes from: all of them are read for that."""
    return importlib.metadata.packages_distributions()


def version_of(name: str) -> dict[str, str]:
    """The version of the distribution that an environment comes from; empty where it can't be told."""
    owners = _distributions().get(package_of(name), ())
    return {owner: importlib.metadata.version(owner) for owner in owners[:1]}


def mend(package: str) -> None:
    """Mend those known faults of this package's environments that are there."""
    for fault in FAULTS.get(package, ()):
        fault()


def _joint_types() -> None:
    """gymnasium-robotics asks `jnt_type in (mjJNT_HINGE, mjJNT_SLIDE)`, which MuJoCo's enumeration answers with no for
    every number of numpy's (3.17; the other way round it says yes): no environment that reads joints can be made. The
    module gets a MuJoCo whose joint types are plain numbers."""
    import mujoco
    import numpy as np

    used: Any = importlib.import_module("gymnasium_robotics.utils.mujoco_utils")
    types = used.mujoco.mjtJoint
    if np.int32(int(types.mjJNT_HINGE)) not in (types.mjJNT_HINGE,):
        used.mujoco = _Instead(mujoco, mjtJoint=_numbers(types))


def _weld_data() -> None:
    """Meta-World writes the 11 numbers of a weld that MuJoCo once had; today there are 12 (3.17), and no environment
    can be made. The same 11 are written, the others stay as the model has them."""
    import mujoco

    base = importlib.import_module("metaworld.sawyer_xyz_env").SawyerMocapBase
    if mujoco.mjNEQDATA > len(WELD):
        base.reset_mocap_welds = _reset_welds


WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
"""Meta-World's: anchor, relative position, relative rotation (none), torque over force."""


def _reset_welds(env: Any) -> None:
    import mujoco

    welds = env.model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)
    if env.model.nmocap > 0:
        env.model.eq_data[welds, : len(WELD)] = WELD


def _numbers(types: Any) -> SimpleNamespace:
    return SimpleNamespace(**{name: int(value) for name, value in types.__members__.items()})


class _Instead:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


FAULTS: dict[str, tuple[Callable[[], None], ...]] = {
    "gymnasium_robotics": (_joint_types,),
    "metaworld": (_weld_data,),
}
