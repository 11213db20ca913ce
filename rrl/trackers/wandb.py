"""Weights & Biases: its server, or offline folders that `wandb sync` sends there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rrl.registry import register
from rrl.store.tracking import Row
from rrl.trackers.base import Project, Tracker

STEPS = "steps"
"""The x-axis: environment steps. W&B's own steps are the numbers of rows."""
SHOWN = frozenset({".png", ".mp4", ".gin"})
"""Files that its pages can show; weights and checkpoints stay here."""
LONGEST = 60
"""Seconds that the end of a run waits for the last numbers to arrive."""


@register
class WandB(Tracker):
    """Weights & Biases, online or offline: metrics over environment steps, settings, pictures and films.

    Its run has rrl's id. A resumed run goes on after the rows that the server holds; offline, where nobody can be
    asked, a new folder gets all rows, and the earlier ones of the run that weren't synchronised yet are removed.
    """

    package = "wandb"
    extra = "wandb"

    class Config(Tracker.Config):
        """Where the run appears."""

        project: Project = "rrl"
        """The project in W&B."""
        entity: Annotated[str, Field(min_length=1, max_length=64)] | None = None
        """User or team that owns it; None: the account's default."""
        mode: Literal["online", "offline"] | None = None
        """'offline': into `wandb/` beside `runs/`, for `wandb sync`; None: as WANDB_MODE says, else online."""

        def refusal(self) -> str | None:
            """Where the package isn't installed, or nobody is logged in."""
            if (reason := super().refusal()) or self._mode() != "online":
                return reason
            import wandb

            if wandb.login(prompt=False, verify=False):
                return None
            return (
                f"{self.component.__name__} would send the run to W&B, and nobody is logged in there: `wandb login`, "
                f"or --set \"{self.component.__name__}.mode = 'offline'\""
            )

        def _mode(self) -> str:
            return self.mode or os.environ.get("WANDB_MODE", "online")

    config: Config
    _run: Any

    def begin(self) -> int:
        """The server tells how many rows it holds; offline: none."""
        import wandb

        run, folder = self.run, self.run.project / "wandb"
        folder.mkdir(exist_ok=True)  # without it wandb takes a temporary one
        earlier = list(folder.glob(f"offline-run-*-{run.run_id}"))
        self._run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            mode=self.config.mode,
            id=run.run_id,
            name=run.name,
            group=run.sweep,
            notes=None if run.resumed else run.note,  # people can edit it there
            config=dict(run.params),
            dir=str(run.project),
            resume="allow",
            allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True, finish_timeout=LONGEST, init_timeout=LONGEST),
        )
        self._run.define_metric(STEPS)
        self._run.define_metric("*", step_metric=STEPS)
        if self._run.offline:
            for path in earlier:
                if not list(path.glob("*.wandb.synced")):
                    shutil.rmtree(path)
        return int(self._run.step)

    def record(self, row: Row) -> None:
        """As W&B's step of the row's number, with the time of then."""
        self._run.log({**row.metrics, STEPS: row.step, "_timestamp": row.time / 1000}, step=self.recorded, commit=True)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Under `facts` in its configuration."""
        self._run.config.update({"facts": {**self._run.config.get("facts", {}), **tags}}, allow_val_change=True)

    def artifact(self, path: Path, folder: str) -> None:
        """Pictures, films and the configuration, as files of the run; one of the same name takes the other's place."""
        if path.suffix not in SHOWN:
            return
        copy = Path(self._run.dir, folder, path.name)  # `save` would link to a file elsewhere, which may change
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def end(self, status: str) -> None:
        """Waits for what hasn't arrived yet, `LONGEST` at most; `wandb sync` sends the rest."""
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)

    def where(self) -> str:
        """The page, or what sends an offline folder there."""
        if not self._run.offline:
            return str(self._run.url)
        return f"wandb sync {Path(self._run.dir).parent}"
