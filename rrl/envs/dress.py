"""Changes the pictures of a MuJoCo model as a `Scene` says: only what is about to be drawn, never the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs import about, gl
from rrl.envs.scene import Eye, NewObject, Recolour, Scene, Surface
from rrl.registry import UserError

gl.choose_backend()
import mujoco  # noqa: E402 (MuJoCo reads MUJOCO_GL while it is imported)

Array = NDArray[np.float64]
Things = frozenset[tuple[int, int]]
"""(GEOM or SITE, number) of what is drawn."""
GEOM, SITE = int(mujoco.mjtObj.mjOBJ_GEOM), int(mujoco.mjtObj.mjOBJ_SITE)
DIRECTIONAL, POINT = 1, 2
"""Kinds of light: like the sun's, and in all directions alike."""
GOALS = ("target", "goal")
"""How the names begin of what shows where the task's objects, or the robot, are to be."""
CLOSE = 20
"""Names that are proposed in the place of a wrong one."""
TRIES = 64
"""Places that are tried for a new object."""


@dataclass(frozen=True)
class Table:
    """Where new objects stand: up to `half` (m) from the centre (x, y) along either axis, at the height `top`. None:
    on the highest fixed thing there, if that is as high as at the centre."""

    centre: tuple[float, float]
    half: float
    top: float | None = None


class Dress:
    """A `Scene` fitted to one model; UserError if the model lacks what is to change.

    `objects`: names of the bodies, geoms and sites that are the task's objects; None: `undriven_and_goals`.
    `table`: None: about the objects, or what moves where there are none; half its width is a quarter of the model's
    extent."""

    def __init__(
        self, scene: Scene, model: Any, name: str, objects: Sequence[str] | None = None, table: Table | None = None
    ) -> None:
        self._scene, self._model, self._name, self._table = scene, model, name, table
        if scene.objects is not None:
            objects = scene.objects
            if unknown := [each for each in objects if not named(model, (each,))]:
                close = ", ".join(get_close_matches(unknown[0], about.seen(model), CLOSE, 0.0))
                raise UserError(
                    f"{name}: no body, geom or site that can be seen is called {unknown[0]!r}; closest first, there "
                    f"are {close or 'none with a name'} (`rrl inspect` lists all)"
                )
        self._objects = undriven_and_goals(model) if objects is None else named(model, objects)
        self._size = self._at = np.zeros(3)  # of the new object, m
        self._surface = -1  # the geom that it would stand on
        self._refuse()

    def _refuse(self) -> None:
        scene, model, name = self._scene, self._model, self._name
        # A field of another name came in the course of MuJoCo 3.3, with these numbers for these kinds.
        kinds = model.light_type if hasattr(model, "light_type") else model.light_directional
        moved, turned = any(scene.light_moved), any(scene.light_turned)
        if (moved or turned) and not model.nlight:
            raise UserError(f"{name} has no light but the camera's own, which can be neither moved nor turned")
        if moved and (kinds == DIRECTIONAL).all():
            raise UserError(f"{name} has directional light alone, which shines alike from wherever it stands")
        if turned and (kinds == POINT).all():
            raise UserError(f"{name} has lights that shine alike in all directions: they can't be turned")
        if scene.recolour and not self._objects:
            goals = " or ".join(GOALS)
            raise UserError(
                f"{name} has no objects to colour: all that moves is driven, and no name begins with {goals}"
            )

    def begin(self, qpos: Array | None) -> None:
        """Find the new object's place and what it would stand on, for an episode that begins at these joint positions
        (None: the model's own). UserError if nothing could carry it."""
        new = self._scene.new_object
        if new is None and self._scene.surface is None:
            return
        start = mujoco.MjData(self._model)
        start.qpos[:] = start.qpos if qpos is None else qpos
        mujoco.mj_kinematics(self._model, start)
        if new is not None:
            self._stand(new, start)
        if self._scene.surface is not None:
            self._surface = self._beneath(start)

    def put_on(self, drawn: Any) -> None:
        """Change a `mujoco.MjvScene` that was made for one picture."""
        moved, turned = np.array(self._scene.light_moved), np.array(self._scene.light_turned)
        for light in drawn.lights[: drawn.nlight]:
            if light.headlight:
                continue
            if moved.any():
                light.pos += moved * (abs(light.pos[2]) or 1.0)
            if turned.any():
                light.dir[:] = (light.dir + turned) / np.linalg.norm(light.dir + turned)
        if self._scene.recolour:
            for geom in drawn.geoms[: drawn.ngeom]:
                if (geom.objtype, geom.objid) in self._objects:
                    self._colour(geom, self._scene.recolour)
        if self._scene.surface:
            for geom in drawn.geoms[: drawn.ngeom]:
                if (geom.objtype, geom.objid) == (GEOM, self._surface):
                    self._cover(geom, self._scene.surface)
        if self._scene.new_object:
            self._add(self._scene.new_object, drawn)
        if self._scene.eye:
            planes = [geom for geom in drawn.geoms[: drawn.ngeom] if geom.type == mujoco.mjtGeom.mjGEOM_PLANE]
            for eye in drawn.camera:  # the left one and the right one, which are the same here
                self._look(eye, self._scene.eye, planes)

    def _colour(self, geom: Any, new: Recolour) -> None:
        own = (self._model.site_rgba if geom.objtype == SITE else self._model.geom_rgba)[geom.objid, :3]
        seen = geom.rgba[:3]
        other = np.clip(new.scale * own + np.array(new.shift), 0.0, 1.0)
        geom.rgba[:3] = np.clip(seen + new.weight * (other - seen), 0.0, 1.0)

    def _cover(self, geom: Any, new: Surface) -> None:
        materials = np.flatnonzero((np.asarray(self._model.mat_texid) >= 0).any(axis=-1))
        others = materials[materials != geom.matid]
        if len(others):
            geom.matid = others[int(new.material * len(others))]
        geom.rgba[:3] = np.clip(geom.rgba[:3] + new.weight * (np.array(new.rgb) - geom.rgba[:3]), 0.0, 1.0)

    def _look(self, eye: Any, new: Eye, planes: Sequence[Any]) -> None:
        away = float(np.linalg.norm(eye.pos - self._model.stat.center))
        right = np.cross(eye.forward, eye.up)
        axes = np.array([right, eye.up, eye.forward], np.float64)
        place = eye.pos.astype(np.float64)
        eye.pos[:] = place + away * np.array(new.moved) @ axes
        # From behind, a plane hides all: relocate's first camera lies in the ground's, and would see through it half of
        # the time. A camera that would pass through one goes as far to the other side.
        for plane in planes:
            normal = plane.mat[:, 2]
            before, after = normal @ (place - plane.pos), normal @ (eye.pos - plane.pos)
            if before > -1e-6 > after:
                eye.pos[:] = eye.pos + 2 * (before - after) * normal
        for degrees, axis in zip(new.turned, axes, strict=True):
            turn = np.empty(4)
            mujoco.mju_axisAngle2Quat(turn, axis, np.radians(degrees))
            for vector in (eye.forward, eye.up):
                turned = np.empty(3)
                mujoco.mju_rotVecQuat(turned, np.array(vector, np.float64), turn)
                vector[:] = turned
        for name in ("frustum_bottom", "frustum_top", "frustum_center", "frustum_width"):
            setattr(eye, name, getattr(eye, name) * 2.0**-new.zoom)

    def _add(self, new: NewObject, drawn: Any) -> None:
        geom = drawn.geoms[drawn.ngeom]
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{new.shape.upper()}")
        mujoco.mjv_initGeom(geom, kind, self._size, self._at, np.eye(3).ravel(), np.array([*new.rgb, 1], np.float32))
        drawn.ngeom += 1

    # Where a new object stands

    def _stand(self, new: NewObject, start: Any) -> None:
        """Where it was asked for, or at the next place that is half the table's half width away from all else (from
        its centres, seen from above); where there is none, far away."""
        objects, there = self._points(start)
        table = self._table or self._around(objects if len(objects) else there)
        # Evenly spread places (the R2 sequence), the first of which is the one asked for.
        spread = np.arange(TRIES)[:, None] * [1.5097776, 1.1396803]
        places = np.array(table.centre) + table.half * ((new.place + spread + 1) % 2 - 1)
        away = np.linalg.norm(places[:, None] - there[:, :2], axis=-1).min(axis=1)
        high = there[:, 2].max() + self._model.stat.extent

        def top(place: Sequence[float]) -> float | None:
            return self._top(start, (*place, high)) if table.top is None else table.top

        wanted = top(table.centre)
        for k in (*np.flatnonzero(away >= table.half / 2), *np.argsort(-away)):
            found = top(places[k])
            if found is not None and wanted is not None and abs(found - wanted) < table.half / 100:
                self._size = table.half * np.array(new.size)
                self._at = np.array([*places[k], found + _height(new, self._size)])
                return
        raise UserError(f"{self._name} has no table or floor that a new object could stand on")

    def _beneath(self, start: Any) -> int:
        """The number of the geom that a new object would stand on, at the table's centre."""
        objects, there = self._points(start)
        table = self._table or self._around(objects if len(objects) else there)
        hit = self._below(start, (*table.centre, there[:, 2].max() + self._model.stat.extent))
        if hit is None:
            raise UserError(f"{self._name} has no table or floor whose surface could change")
        return hit[0]

    def _points(self, start: Any) -> tuple[Array, Array]:
        """Centres [n, 3] of the objects, and of them and all else that moves (the world's, if nothing does)."""
        objects = [(start.site_xpos if kind == SITE else start.geom_xpos)[number] for kind, number in self._objects]
        moving = start.geom_xpos[self._model.body_weldid[self._model.geom_bodyid] != 0]
        return np.array(objects).reshape(-1, 3), np.array([*objects, *moving] or [np.zeros(3)])

    def _around(self, points: Array) -> Table:
        x, y, _ = points.mean(axis=0)
        return Table((x, y), self._model.stat.extent / 4)

    def _top(self, start: Any, point: Sequence[float]) -> float | None:
        """Height of what `_below` finds."""
        hit = self._below(start, point)
        return None if hit is None else hit[1]

    def _below(self, start: Any, point: Sequence[float]) -> tuple[int, float] | None:
        """(number, height) of the first geom below a point that can be seen, is fixed and no object."""
        at, hit = np.array(point), np.zeros(1, np.int32)
        while (below := mujoco.mj_ray(self._model, start, at, np.array([0.0, 0.0, -1.0]), None, 1, -1, hit)) >= 0:
            at[2] -= below
            fixed = self._model.body_weldid[self._model.geom_bodyid[hit[0]]] == 0
            if fixed and (GEOM, hit[0]) not in self._objects:
                return int(hit[0]), float(at[2])
            at[2] -= 1e-6  # on, from just below its surface
        return None


def _height(new: NewObject, size: Array) -> float:
    """Of its centre above what it stands on."""
    return float({"sphere": size[0], "capsule": size[0] + size[1], "cylinder": size[1]}.get(new.shape, size[2]))


# Which things are the task's objects


def named(model: Any, names: Sequence[str]) -> Things:
    """Geoms and sites of these names, and all those of bodies of these names."""
    return _things(model, lambda name: name in names)


def undriven_and_goals(model: Any) -> Things:
    """Geoms of the bodies that move and that no actuator moves, nor anything that they hang on or carry; geoms and
    sites whose name, or whose body's name, begins with one of `GOALS`."""
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    dofs = data.moment_colind[: data.moment_rownnz.sum()]  # that actuators act on
    driven = model.body_rootid[model.dof_bodyid[dofs]]
    undriven = np.setdiff1d(model.body_rootid[model.dof_bodyid], driven)
    geoms = np.flatnonzero(np.isin(model.body_rootid[model.geom_bodyid], undriven))
    return _things(model, lambda name: name.startswith(GOALS)) | {(GEOM, int(g)) for g in geoms}


def _things(model: Any, wanted: Callable[[str], bool]) -> Things:
    """Geoms and sites whose own name, or whose body's, is wanted."""
    every = [(GEOM, model.geom(g), b) for g, b in enumerate(model.geom_bodyid)]
    every += [(SITE, model.site(s), b) for s, b in enumerate(model.site_bodyid)]
    return frozenset((kind, thing.id) for kind, thing, b in every if wanted(thing.name) or wanted(model.body(b).name))
