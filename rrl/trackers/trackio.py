"""Trackio: a database on this machine, and its dashboard."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from rrl.registry import register
from rrl.store.tracking import Row
from rrl.trackers.base import Project, Tracker

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


@register
class Trackio(Tracker):
    """Trackio's database on this machine (TRACKIO_DIR says where): metrics over environment steps, and the settings.

    A resumed run goes on after as many rows as the database holds of it. `trackio sync` sends it to a Space.
    """

    package = "trackio"
    extra = "trackio"

    class Config(Tracker.Config):
        """Where the run appears."""

        project: Project = "rrl"
        """The project in Trackio."""

        def refusal(self) -> str | None:
            """Where the package isn't installed, or would send the run somewhere else."""
            told = [name for name in ELSEWHERE if os.environ.get(name)]
            if (reason := super().refusal()) or not told:
                return reason
            return (
                f"{self.component.__name__} records on this machine, and {told[0]} says otherwise: unset it, and "
                "`trackio sync` sends the project there"
            )

    config: Config
    _run: Any

    def begin(self) -> int:
        """The database tells how many rows it holds."""
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=self.config.project,
                name=self.run.own_name,
                group=self.run.sweep,
                config=dict(self.run.params),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        return int(SQLiteStorage.get_log_count(self.config.project, run_id=self._run.id))

    def record(self, row: Row) -> None:
        """Each number at its environment steps; written within half a second, by a thread."""
        self._run.log(dict(row.metrics), step=row.step)

    def end(self, status: str) -> None:
        """Waits for what isn't written yet."""
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()

    def where(self) -> str:
        """The command."""
        return f"trackio show --project {self.config.project}"
