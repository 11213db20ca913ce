"""How every command begins, and how mistakes are told."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

WORDS = "rrl.words"
"""Where click's context keeps what was typed."""
_UsageError: Any = typer.BadParameter.__base__


class Group(TyperGroup):
    """A user's mistake, in a plugin's code too, is told in plain words and exits 2; a fault of ours shows a traceback
    and exits 1."""

    def invoke(self, ctx: Any) -> Any:
        atexit.register(gc.freeze)  # else Python's last collection walks all of torch and MLflow: seconds
        os.environ["PYTHONSAFEPATH"] = "1"  # children run no file of the working folder that is named as a module
        if "OMP_WAIT_POLICY" not in os.environ:
            # Before torch loads libgomp, whose threads wait for each other busily, 300,000 turns long: beside
            # another busy process they use up the very time that the late one needs, and a training runs
            # several times slower (docs/performance.md).
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        return self._teaching(ctx, super().invoke, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words up to the command's name."""
        ctx.meta[WORDS] = list(args)
        return self._teaching(ctx, super().parse_args, ctx, args)

    def _teaching(self, ctx: Any, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            _live_somewhere()
            return work(*arguments)
        except Exception as error:
            from rrl.registry import MachineError, UserError

            if isinstance(error, MachineError):
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(1) from None
            if isinstance(error, (typer.Exit, typer.Abort)) or type(error).__name__ == "NoArgsIsHelpError":
                raise
            if not isinstance(error, (UserError, _UsageError)):
                from rrl.machine import plugin_faults

                if (fault := plugin_faults.told(error)) is None:
                    _forget_the_unprintable()
                    raise
                error = UserError(fault)
            from rrl.commands import mistyped

            typer.echo(f"error: {mistyped.told(error, self, ctx.meta[WORDS])}", err=True)
            raise typer.Exit(2) from None


def _forget_the_unprintable() -> None:
    """What a full disk or a closed pipe didn't take is not tried again when Python ends, which would exit with 120."""
    try:
        if sys.stdout is not None:  # as it is where it was closed before Python began
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _live_somewhere() -> None:
    """UserError if the current folder has been removed: every path is relative to it. A user without a home, as in a
    container, gets one for this process: MLflow and matplotlib look for theirs, and our cache lies there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        from rrl.registry import UserError

        raise UserError("the current folder has been removed: cd to another one") from None
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = f"{tempfile.gettempdir()}/rrl-home-{os.getuid()}"
