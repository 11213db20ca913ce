"""Draws docs/cameras.jpg: what every camera of the paper's tasks sees, in the first observation of an episode.

python scripts/draw_cameras.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rrl.config import ginfile
from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import TASKS
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.registry import build

OUT = Path(__file__).resolve().parents[1] / "docs" / "cameras.jpg"
SIDE, LINE, ACROSS = 200, 16, 6
"""Pixels of a picture and of the line above it; pictures in a row."""


def main() -> None:
    """Write the sheet: Adroit's cameras by task, the protocol's own first, then the other tasks'."""
    cells = list(adroit()) + list(others())
    down = -(-len(cells) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * SIDE, down * (SIDE + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, picture) in enumerate(cells):
        x, y = i % ACROSS * SIDE, i // ACROSS * (SIDE + LINE)
        draw.text((x + 3, y + 2), title, fill="black")
        sheet.paste(Image.fromarray(picture), (x, y + LINE))
    sheet.save(OUT, quality=85)
    print(OUT)


def adroit() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each task's cameras under the paper's protocol; a star: what the policy sees."""
    for name, task in TASKS.items():
        shown = task.default_cameras["paper"]
        for camera in (*shown, *(c for c in task.cameras("paper") if c not in shown)):
            factory = Adroit(Adroit.Config(task=name, cameras=(camera,)))
            yield f"{name}, {camera}{' *' if camera in shown else ''}", first(factory)


def others() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Every other task in gin/env, as it is shown there."""
    for part in sorted(name for name in ginfile.fragments() if name.startswith("env/")):
        if ginfile.binds(part, "Experiment") and "adroit" not in part:
            yield f"{part.removeprefix('env/')} *", first(build(ginfile.bound(part, "env")))


def first(factory: EnvFactory) -> NDArray[np.uint8]:
    """What the policy sees as episode 0 begins, [SIDE, SIDE, 3]."""
    env = factory.make_one(FrameRequest(SIDE, SIDE))
    obs, _ = env.reset(seed=0)
    return obs["frames"][..., :3]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
