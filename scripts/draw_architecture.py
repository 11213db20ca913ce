"""Draws docs/architecture.svg from the imports of rrl/, and prints how large the house is.

    python scripts/draw_architecture.py [--count [FOLDER]]

A room is a folder of rrl/ or a file beside them. An arrow from one room to another: some module of the first imports
one of the second, wherever the import stands.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "architecture.svg"


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file."""
    return {
        ".".join(p.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): p
        for p in sorted(package.rglob("*.py"))
    }


def room(module: str) -> str:
    """`rrl.envs.adroit` -> `envs`; "" for the package itself and for what `python -m` starts."""
    return module.split(".")[1] if "." in module and module != "rrl.__main__" else ""


def arrows(package: Path) -> Counter[tuple[str, str]]:
    """(importing room, imported room) -> number of imports."""
    known, found = modules(package), Counter[tuple[str, str]]()
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "rrl":
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = room(full if full in known else node.module or "")
                if target and room(module) and target != room(module):
                    found[room(module), target] += 1
    return found


def floors(edges: Counter[tuple[str, str]]) -> dict[str, int]:
    """Room -> the longest way down from it to a room that imports nothing; a circle ends in a RecursionError."""
    below: dict[str, set[str]] = {}
    for upper, lower in edges:
        below.setdefault(upper, set()).add(lower)
        below.setdefault(lower, set())
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in heights:
            heights[name] = 1 + max((height(other) for other in below[name]), default=-1)
        return heights[name]

    return {name: height(name) for name in sorted(below)}


def count(package: Path) -> list[str]:
    """Files in the root, lines, arrows, the longest function."""
    known, edges = modules(package), arrows(package)
    longest = max(
        (node.end_lineno - node.lineno + 1, f"{module}.{node.name}")
        for module, path in known.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    )
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in known.values())
    return [
        f"files in the root: {len(list(package.glob('*.py')))}",
        f"modules: {len(known)}, lines: {lines}",
        f"rooms: {len({name for edge in edges for name in edge})}, arrows between rooms: {len(edges)}",
        f"longest function: {longest[1]}, {longest[0]} lines",
    ]


def draw(edges: Counter[tuple[str, str]]) -> None:
    """One row of boxes a floor, the highest on top. Dark arrows say it all: a faint one goes where a chain of dark ones
    leads too. The registry, which everybody imports, is left out."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rrl"
    from matplotlib import pyplot as plt

    text = described(edges)
    edges = Counter({edge: number for edge, number in edges.items() if "registry" not in edge})
    rows: dict[int, list[str]] = {}
    for name, height in floors(edges).items():
        rows.setdefault(height, []).append(name)
    figure, axes = plt.subplots(figsize=(9, 0.62 * len(rows) + 0.4))
    places = {}
    for height, names in rows.items():
        for i, name in enumerate(names):
            places[name] = ((i + 0.5) / len(names) * 10 + 0.35 * (height % 2), float(height))
    for upper, lower in edges:
        dark = not any(reaches(edges, other, lower) for above, other in edges if above == upper and other != lower)
        style = {"arrowstyle": "-|>", "color": "#0072b2", "alpha": 0.9 if dark else 0.13, "shrinkA": 9, "shrinkB": 9}
        axes.annotate("", places[lower], places[upper], arrowprops=style)
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#333333"}
        axes.text(x, y, name, ha="center", va="center", fontsize=10, bbox=box)
    axes.set(xlim=(-0.6, 11), ylim=(-0.6, len(rows) - 0.4))
    axes.axis("off")
    figure.savefig(OUT, metadata={"Date": None, "Description": text}, bbox_inches="tight")


def reaches(edges: Counter[tuple[str, str]], start: str, end: str) -> bool:
    """Is there a chain of arrows from one room to another?"""
    return start == end or any(reaches(edges, lower, end) for upper, lower in edges if upper == start)


def described(edges: Counter[tuple[str, str]]) -> str:
    """The arrows as text, kept in the picture: a test sees by it whether the picture is up to date."""
    return "; ".join(f"{upper} -> {lower}" for upper, lower in sorted(edges))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        print("\n".join(count(Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "rrl")))
    else:
        draw(arrows(ROOT / "rrl"))
        print(OUT)
