"""Rules that keep the project simple: which way imports point, how long files are, what starts quickly."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(p for d in ("rrl", "tests") for p in (ROOT / d).rglob("*.py")) + [ROOT / "cli.py"]
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in FILES
    if p.is_relative_to(ROOT / "rrl")
}

# Which parts of rrl each part may import, wherever the import stands. A package may always import its own
# modules; components see the *bases* of other kinds, never each other's implementations.
MAY_IMPORT = {
    "registry": "",
    "statistics": "",
    "gin*": "registry",
    "rollout": "registry envs.vector",
    "envs": "registry rollout",
    "encoders": "registry envs.base checkpoint",
    "demos": "registry rollout envs.base",
    "calibration": "rollout demos",
    "stepper": "rollout envs.vector",
    "agents": "registry rollout demos encoders.base encoders.pixel",
    "training": "agents.base rollout stepper statistics tracking",
    "importers": "registry",
    "evaluators": "registry rollout statistics envs.base encoders.base",
    "checkpoint": "registry",
    "console": "registry",
    "tracking": "registry",
    "plots": "tracking",
    "results": "registry tracking gin*",
    "processes": "",
}
TOP = {
    "experiment",
    "policies",
    "runs",
    "sweeps",
    "report",
    "reproduce",
    "demo_tools",
    "evaluation",
    "doctor",
    "bench",
    "cli",
}  # may import anything below
ONLY_IN = {
    "gin": {"gin*"},
    "mlflow": {"tracking", "runs", "cli"},
    "typer": {"cli"},
}
HEAVY = {"torch", "torchvision", "mlflow", "mujoco", "gymnasium_robotics", "dm_control", "matplotlib", "av"}


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Dotted names that a file imports at run time (not for type checking only), relative ones resolved.

    `lazy`: with the imports inside functions.
    """

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.orelse:
                yield from walk(statement)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            for alias in node.names:  # a module of the package, or a name in the module
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module or ""
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for child in ast.iter_child_nodes(node):
                yield from walk(child)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")))


def part(module: str) -> str:
    """`rrl.envs.adroit` -> `envs`: the row of the table that a module belongs to; "" for `rrl` itself."""
    name = module.split(".")[1] if "." in module else ""
    return "gin*" if name.startswith("gin") else name


def allowed(importer: str, imported: str) -> bool:
    if part(importer) in TOP | {""} or part(imported) in {part(importer), ""}:
        return part(imported) != "cli"
    rows = MAY_IMPORT[part(importer)].split()
    return imported.removeprefix("rrl.") in rows or part(imported) in rows


def test_every_module_has_its_place_in_the_picture() -> None:
    assert {part(m) for m in MODULES} - {""} <= MAY_IMPORT.keys() | TOP


def test_imports_point_one_way() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer, path in MODULES.items()
        for imported in imports(path)
        if imported.split(".")[0] == "rrl" and not allowed(importer, imported)
    ]
    assert not wrong


def test_importing_has_no_cycles() -> None:
    graph = {m: {i for i in imports(p, lazy=False) if i in MODULES and i != m} for m, p in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert order.index("rrl.registry") < order.index("rrl.run.experiment")


def test_the_registry_knows_pydantic_and_nothing_else() -> None:
    roots = {name.split(".")[0] for name in imports(MODULES["rrl.registry"])}
    assert roots - set(sys.stdlib_module_names) == {"pydantic", "pydantic_core"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {part(m) for m, p in MODULES.items() if any(i.split(".")[0] == library for i in imports(p))}
    assert users
    assert users <= ONLY_IN[library]


def test_nothing_is_unpickled() -> None:
    for path in MODULES.values():
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path


def test_files_are_short() -> None:
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 600}
    assert not long


def test_the_loop_fits_on_a_screen_or_two() -> None:
    tree = ast.parse(MODULES["rrl.run.experiment"].read_text())
    (experiment,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Experiment")
    (run,) = (n for n in experiment.body if isinstance(n, ast.FunctionDef) and n.name == "run")
    assert run.end_lineno is not None
    assert run.end_lineno - run.lineno + 1 < 100


def test_the_gin_folder_is_no_package() -> None:
    # It would shadow gin-config's package `gin` wherever the checkout is on the path.
    assert (ROOT / "gin").is_dir()
    assert not list((ROOT / "gin").rglob("*.py"))


def loaded(tmp_path: Path, *arguments: str) -> set[str]:
    """The heavy libraries that `rrl ARGUMENTS` has imported by the time it ends, from an empty folder."""
    (tmp_path / "probe.py").write_text(
        "import atexit, json, sys\n"
        "from pathlib import Path\n"
        f"sys.argv[:] = ['rrl', *{list(arguments)!r}]\n"
        "roots = lambda: sorted({name.split('.')[0] for name in sys.modules})\n"
        "atexit.register(lambda: Path('modules.json').write_text(json.dumps(roots())))\n"
        "from rrl.cli import app\n"
        "app()\n"
    )
    done = subprocess.run([sys.executable, "probe.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return HEAVY & set(json.loads((tmp_path / "modules.json").read_text()))


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--help") == set()


@pytest.mark.parametrize("arguments", [("list",), ("check", "quickstart")], ids=" ".join)
def test_list_and_check_import_torch_at_most(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert loaded(tmp_path, *arguments) <= {"torch"}


def test_environments_need_no_torch(tmp_path: Path) -> None:
    """Worker processes simulate and render; torch in each would cost memory and start-up time."""
    code = "import sys, rrl.envs, rrl.envs.vector, rrl.rollout; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
