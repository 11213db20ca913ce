"""How a picture may differ from a model's own look, as plain data: RRL's visual distractors (section 5.4).

The ranges are those of the authors' released code, for the Adroit models, whose only light stands at (-1, -1, 4) m and
shines along (1, 1, -4). They are held relative to the model's own light, and to the table of `rrl.envs.dress.Table`, so
that they mean the same in Adroit and something sensible in other models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rrl.registry import UserError

Vector = tuple[float, float, float]
Shape = Literal["sphere", "capsule", "ellipsoid", "cylinder", "box"]
SHAPES: tuple[Shape, ...] = ("sphere", "capsule", "ellipsoid", "cylinder", "box")
MOST = 2.0
"""The highest severity."""
LIGHT_AT, LIGHT_ALONG = (-1.0, -1.0, 4.0), (1 / 18**0.5, 1 / 18**0.5, -4 / 18**0.5)
"""Adroit's light: position (m) and direction."""


@dataclass(frozen=True)
class Recolour:
    """Other colours of the task's objects: each geom's own rgb c, in [0, 1] (grey 0.5 where a material colours it),
    becomes `scale * c + shift`, clipped; a texture stays, in that tint, and so does what shines through."""

    scale: float
    shift: Vector
    weight: float = 1.0
    """How far from the colour that is seen nominally (0) to that one (1), and beyond."""


@dataclass(frozen=True)
class NewObject:
    """One more thing on the table, which nothing can touch."""

    shape: Shape
    size: Vector
    """In parts of the table's half width. Sphere: radius; capsule, cylinder: radius, half length; else half axes."""
    place: tuple[float, float]
    """On the table, which spans [-1, 1] along x and y. It is moved if that is too near to what is there as an episode
    begins."""
    rgb: Vector
    """Colour, in [0, 1]."""


@dataclass(frozen=True)
class Scene:
    """What differs in a picture; `Scene()` is the model's own look. `dataclasses.asdict` makes JSON of it, and
    `pydantic.TypeAdapter(Scene)` reads that."""

    light_moved: Vector = (0.0, 0.0, 0.0)
    """By how much every light is moved, in parts of its height."""
    light_turned: Vector = (0.0, 0.0, 0.0)
    """What is added to the direction (of length 1) in which every light shines."""
    recolour: Recolour | None = None
    new_object: NewObject | None = None
    objects: tuple[str, ...] | None = None
    """Names of the bodies, geoms and sites that are the task's objects; None: as the environment says."""


def _light_position(rng: np.random.Generator, severity: float) -> Scene:
    at = rng.uniform([-1.0, -1.0, 2.0], [0.5, 0.5, 5.0])
    return Scene(light_moved=_vector(severity * (at - LIGHT_AT) / LIGHT_AT[2]))


def _light_direction(rng: np.random.Generator, severity: float) -> Scene:
    along = rng.uniform([-0.25, -0.25, -1.0], [0.25, 0.25, -0.5])
    return Scene(light_turned=_vector(severity * (along - LIGHT_ALONG)))


def _object_colour(rng: np.random.Generator, severity: float) -> Scene:
    scale = float(rng.uniform(0.8, 1.2))
    return Scene(recolour=Recolour(scale, _vector(rng.uniform(-0.52, 0.52, 3)), severity))


def _new_object(rng: np.random.Generator, severity: float) -> Scene:
    """It grows with the severity."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    size = _vector(severity * rng.uniform(0.03, 0.04, 3) / 0.3)  # m, on a table of 0.3 m to either side
    x, y = rng.uniform(-1.0, 1.0, 2)
    return Scene(new_object=NewObject(shape, size, (float(x), float(y)), _vector(rng.uniform(size=3))))


_DRAWN: dict[str, Callable[[np.random.Generator, float], Scene]] = {
    "light position": _light_position,
    "light direction": _light_direction,
    "object colour": _object_colour,
    "new object": _new_object,
}
KINDS = tuple(_DRAWN)
"""The kinds of change that `draw` knows."""


def draw(kind: str, rng: np.random.Generator, severity: float = 1.0) -> Scene:
    """One change of a kind, within the paper's ranges at severity 1: light in the box (-1, -1, 2) to (0.5, 0.5, 5) m,
    or shining along one from (-0.25, -0.25, -1) to (0.25, 0.25, -0.5); objects in their own colours times one of 0.8
    to 1.2, plus -0.52 to 0.52 in each of red, green and blue; a thing of 3 to 4 cm in any shape and colour, on a table
    of 60 cm. (The released code adds colours up over episodes, leaves boxes out, and has the thing red, in one place
    and solid; the paper tells of what is done here.)

    `severity`: how far from the nominal look (0, and that is `Scene()`) to what was drawn (1), and on in the same
    direction (up to 2). Equally seeded generators give the same change at every severity. UserError for an unknown
    kind or severity."""
    if kind not in KINDS:
        raise UserError(f"pictures can change in {', '.join(KINDS)}; got {kind!r}")
    if not 0 <= severity <= MOST:
        raise UserError(f"a severity is a number from 0 (nominal) to {MOST:g}, with 1 for the paper's; got {severity}")
    drawn = _DRAWN[kind](rng, severity)
    return drawn if severity else Scene()


def draws(kind: str, count: int, seed: int, severity: float = 1.0) -> list[Scene]:
    """So many changes of a kind, equal for equal arguments; see `draw`. The first ones are those of a smaller count."""
    words = [seed, *kind.encode()]
    return [draw(kind, np.random.default_rng([*words, number]), severity) for number in range(count)]


def _vector(numbers: ArrayLike) -> Vector:
    x, y, z = (float(number) for number in np.asarray(numbers))
    return x, y, z
