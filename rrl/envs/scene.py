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
class Eye:
    """Other places and angles of view of all cameras."""

    moved: Vector = (0.0, 0.0, 0.0)
    """To its right, up and forwards, in parts of its distance from the centre of the model."""
    turned: Vector = (0.0, 0.0, 0.0)
    """About the axes to its right, up and forwards, in degrees, one after another."""
    zoom: float = 0.0
    """Half, or twice, of what was seen along each side is seen at 1 and -1."""


@dataclass(frozen=True)
class Surface:
    """Another surface of what new objects stand on, such as the table."""

    material: float
    """In [0, 1): which one of the model's materials with a texture; its own where it has no other."""
    rgb: Vector
    """Its tint."""
    weight: float = 1.0
    """How far from its own tint (0) to this one (1)."""


@dataclass(frozen=True)
class Effect:
    """What happens to a picture when it is drawn already, in this order."""

    brightness: float = 1.0
    """All values times this (0: black)."""
    contrast: float = 1.0
    """All values' distances from the picture's mean grey times this (0: grey)."""
    blur: float = 0.0
    """Std of a Gaussian, in parts of the picture's side."""
    patch: tuple[float, float, float] | None = None
    """A square of one colour that hides what is behind it: centre (across and down) and side, in parts of the picture's
    side."""
    patch_rgb: Vector = (0.5, 0.5, 0.5)
    jpeg: int = 100
    """Quality with which it is compressed as JPEG; 100: it isn't."""


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
    eye: Eye | None = None
    surface: Surface | None = None
    effect: Effect | None = None
    """Not the simulator's business: whoever gives pictures to a policy applies it (`rrl.rollout.effects`)."""
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


def _camera(rng: np.random.Generator, severity: float) -> Scene:
    moved, turned = rng.uniform(-0.05, 0.05, 3), rng.uniform(-3.0, 3.0, 3)
    return Scene(eye=Eye(moved=_vector(severity * moved), turned=_vector(severity * turned)))


def _field_of_view(rng: np.random.Generator, severity: float) -> Scene:
    return Scene(eye=Eye(zoom=severity * float(rng.uniform(-0.25, 0.25))))


def _surface(rng: np.random.Generator, severity: float) -> Scene:
    """The texture is another one at any severity above 0."""
    return Scene(surface=Surface(float(rng.uniform()), _vector(rng.uniform(size=3)), severity / 2))


def _brightness(rng: np.random.Generator, severity: float) -> Scene:
    return Scene(effect=Effect(brightness=max(1 + severity * float(rng.uniform(-0.4, 0.4)), 0.0)))


def _contrast(rng: np.random.Generator, severity: float) -> Scene:
    return Scene(effect=Effect(contrast=max(1 + severity * float(rng.uniform(-0.5, 0.5)), 0.0)))


def _blur(rng: np.random.Generator, severity: float) -> Scene:
    return Scene(effect=Effect(blur=severity * float(rng.uniform(0.005, 0.015))))


def _patch(rng: np.random.Generator, severity: float) -> Scene:
    x, y = rng.uniform(0.1, 0.9, 2)
    side = severity * float(rng.uniform(0.1, 0.25))
    return Scene(effect=Effect(patch=(float(x), float(y), side), patch_rgb=_vector(rng.uniform(size=3))))


def _jpeg(rng: np.random.Generator, severity: float) -> Scene:
    return Scene(effect=Effect(jpeg=max(round(100 - severity * float(rng.uniform(60, 95))), 1)))


_PAPER: dict[str, Callable[[np.random.Generator, float], Scene]] = {
    "light position": _light_position,
    "light direction": _light_direction,
    "object colour": _object_colour,
    "new object": _new_object,
}
_OTHERS: dict[str, Callable[[np.random.Generator, float], Scene]] = {
    "camera": _camera,
    "field of view": _field_of_view,
    "surface": _surface,
    "brightness": _brightness,
    "contrast": _contrast,
    "blur": _blur,
    "patch": _patch,
    "jpeg": _jpeg,
}
KINDS, OTHERS = tuple(_PAPER), tuple(_OTHERS)
"""The paper's kinds of change, and what people ask for beside them."""


def draw(kind: str, rng: np.random.Generator, severity: float = 1.0) -> Scene:
    """One change of a kind, of the paper's ones within its ranges at severity 1: light in the box (-1, -1, 2) to (0.5,
    0.5, 5) m, or shining along one from (-0.25, -0.25, -1) to (0.25, 0.25, -0.5); objects in their own colours times
    one of 0.8 to 1.2, plus -0.52 to 0.52 in each of red, green and blue; a thing of 3 to 4 cm in any shape and colour,
    on a table of 60 cm. (The released code adds colours up over episodes, leaves boxes out, and has the thing red, in
    one place and solid; the paper tells of what is done here.)

    Ours at severity 1: a camera moved by up to 5 % of its distance and turned by up to 3 degrees about each axis; a
    field of view of 84 to 119 %; another texture of the table, half in another tint; brightness of 60 to 140 %;
    contrast of 50 to 150 %; a Gaussian blur of 0.5 to 1.5 % of the side; a square of 10 to 25 % of the side; JPEG of
    quality 5 to 40.

    `severity`: how far from the nominal look (0, and that is `Scene()`) to what was drawn (1), and on in the same
    direction (up to 2). Equally seeded generators give the same change at every severity. UserError for an unknown
    kind or severity."""
    if kind not in (*KINDS, *OTHERS):
        raise UserError(f"pictures can change in {', '.join((*KINDS, *OTHERS))}; got {kind!r}")
    if not 0 <= severity <= MOST:
        raise UserError(f"a severity is a number from 0 (nominal) to {MOST:g}, with 1 for the paper's; got {severity}")
    drawn = (_PAPER | _OTHERS)[kind](rng, severity)
    return drawn if severity else Scene()


def draws(kind: str, count: int, seed: int, severity: float = 1.0) -> list[Scene]:
    """So many changes of a kind, equal for equal arguments; see `draw`. The first ones are those of a smaller count."""
    words = [seed, *kind.encode()]
    return [draw(kind, np.random.default_rng([*words, number]), severity) for number in range(count)]


def _vector(numbers: ArrayLike) -> Vector:
    x, y, z = (float(number) for number in np.asarray(numbers))
    return x, y, z
