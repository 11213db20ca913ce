"""Rules that keep the house simple: which way imports point, what general code may know, what starts quickly."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.report_runs import make_run

from rrl import registry

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted((ROOT / "rrl").rglob("*.py"))
}
# A room may import rooms on lower floors, and itself; imports inside functions and for type checkers count too.
FLOORS = (
    "registry score statistics",
    "machine",
    "config",
    "store",
    "envs",
    "rollout",
    "encoders",
    "agents demos evaluators trackers",
    "run",
    "commands report pretrain",
    "sweeps",
    "bench",
    "probes reproduce",
    "cli",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
# Of components, rooms up to `run` see the bases alone.
BASES = {
    "envs": {"rrl.envs.base", "rrl.envs.scene", "rrl.envs.vector", "rrl.envs.workers"},
    "encoders": {
        "rrl.encoders.base",
        "rrl.encoders.settings.base",
        "rrl.encoders.pixel",
        "rrl.encoders.backends",
    },
    "agents": {"rrl.agents.base", "rrl.agents.settings.base"},
    "evaluators": {"rrl.evaluators.base"},
    "trackers": {"rrl.trackers.base"},
}
ONLY_IN = {
    "gin": {"config"},
    "mlflow": {"store", "cli"},
    "typer": {"cli", "commands"},
    "wandb": {"trackers"},
    "trackio": {"trackers"},
}
HEAVY = {
    *("wandb", "tensorboard", "trackio"),
    *("torch", "torchvision", "mlflow", "fastapi", "pandas", "scipy"),
    *("mujoco", "gymnasium_robotics", "dm_control", "matplotlib", "av"),
}
# What else than nothing of that commands may have imported by the time they end.
MAY_IMPORT = {
    "--help": set[str](),
    "list": set(),
    "check quickstart": set(),
    "check adroit_door_ferm": set(),
    "describe DAPG": set(),
    "list files": set(),
    "show quickstart": set(),
    "schema DAPG": set(),
    "demos info adroit_door_paper": set(),
    "weights list": {"torch"},
    "runs": set(),
    "runs --json": set(),
    "compare aa bb": set(),
    "report": {"matplotlib", "scipy"},
}

# Rooms whose code is general: it knows kinds of components, and no component.
GENERAL = (
    "config",
    "store",
    "machine",
    "rollout",
    "run",
    "demos",
    "report",
    "sweeps",
    "pretrain",
    "probes",
    "commands",
)
KIND_OF = {
    "envs": "environment",
    "encoders": "encoder",
    "agents": "agent",
    "demos": "demos",
    "evaluators": "evaluator",
    "trackers": "tracker",
}
ROOTS = ("Experiment", "Sweep", "Pretraining", "Probe")
SLOTS = ("env", "encoder", "agent", "demos", "evaluators", "trackers")


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            for alias in node.names:  # a module of the package, or a name in the module
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module or ""


def room(module: str) -> str:
    """`rrl.envs.adroit` -> `envs`; "" for `rrl` itself, which anything may import and which imports lazily, and for
    what `python -m rrl` starts."""
    return module.split(".")[1] if "." in module and module != "rrl.__main__" else ""


def inside(path: Path) -> Iterator[str]:
    return (name for name in imports(path) if name.split(".")[0] == "rrl" and room(name))


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} - {""} == FLOOR.keys()
    assert len(list((ROOT / "rrl").glob("*.py"))) <= 6


def test_imports_point_down() -> None:
    wrong = [
        f"{importer} imports {name}"
        for importer, path in MODULES.items()
        for name in inside(path)
        if room(importer) and room(name) != room(importer) and FLOOR[room(name)] >= FLOOR[room(importer)]
    ]
    assert not wrong


def test_components_are_seen_by_their_bases() -> None:
    wrong = [
        f"{importer} imports {name}"
        for importer, path in MODULES.items()
        for name in inside(path)
        if room(importer) != room(name) in BASES
        and room(importer)
        and FLOOR[room(importer)] <= FLOOR["run"]
        and name not in BASES[room(name)]
    ]
    assert not wrong


def test_importing_goes_round_in_no_circle() -> None:
    graph = {m: {name for name in inside(path) if name != m} for m, path in MODULES.items() if room(m)}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert order.index("rrl.registry") < order.index("rrl.run.experiment")


def docstrings(tree: ast.AST) -> set[int]:
    """Identities of the constants that are docstrings, of fields too."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def base_of(cls: type[registry.Component]) -> type[registry.Component]:
    """The base of a component's kind."""
    return next(base for base in reversed(cls.__mro__) if getattr(base, "kind", None) == cls.kind)


def components() -> dict[str, str]:
    """Name -> kind of every component that this package registers, but for the roots of gin files and for those that
    are the base of their kind."""
    known = {name: registry.get(name) for kind in KIND_OF.values() for name in registry.names(kind)}
    ours = {name: cls for name, cls in known.items() if cls.__module__.startswith("rrl.")}
    return {name: cls.kind for name, cls in ours.items() if base_of(cls) is not cls}


def particular_fields() -> set[str]:
    """Settings that some components have and neither the base of their kind nor a run or a sweep."""
    importlib.import_module("rrl.sweeps.plan")  # which registers Sweep, whatever ran before
    fields: set[str] = set()
    for name in components():
        cls = registry.get(name)
        fields |= cls.Config.model_fields.keys() - base_of(cls).Config.model_fields.keys()
    return fields - {field for root in ROOTS for field in registry.get(root).Config.model_fields}


def test_no_component_is_named_where_another_kind_lives() -> None:
    """Nor in general code. Strings count, texts of help (docstrings) don't."""
    known = components()
    wrong = []
    for module, path in MODULES.items():
        if room(module) not in (*GENERAL, *KIND_OF):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = docstrings(tree)
        for node in ast.walk(tree):
            texts: list[str] = []
            if isinstance(node, ast.Name):
                texts = [node.id]
            elif isinstance(node, ast.Attribute):
                texts = [node.attr]
            elif isinstance(node, ast.alias):
                texts = [node.name]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                texts = re.findall(r"\w+", node.value)
            wrong += [
                f"{module}:{node.lineno} names {text}"  # type: ignore[attr-defined]
                for text in texts
                if text in known and known[text] != KIND_OF.get(room(module))
            ]
    assert not wrong, "\n".join(wrong)


def test_no_setting_of_a_component_is_read_by_general_code() -> None:
    """As an attribute of a part's config, by `getattr`, in an update of a config, or as a flat parameter."""
    fields = particular_fields()
    part = re.compile(rf"(\bconfig\.({'|'.join(SLOTS)})|\b({'|'.join(SLOTS)})\.config)$")
    flat = re.compile(rf"({'|'.join(SLOTS)})\.(\w+)")
    wrong = []
    for module, path in MODULES.items():
        if room(module) not in GENERAL:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = docstrings(tree)
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Attribute) and part.search(ast.unparse(node.value)):
                names = [node.attr]
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                names = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("model_copy"):
                keys = [key for word in node.keywords if isinstance(word.value, ast.Dict) for key in word.value.keys]
                on_part = isinstance(node.func, ast.Attribute) and part.search(ast.unparse(node.func.value))
                names = [key.value for key in keys if isinstance(key, ast.Constant) and on_part]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                match = flat.fullmatch(node.value)
                names = [match[2]] if match else []
            wrong += [f"{module}:{node.lineno} reads {name}" for name in names if name in fields]  # type: ignore[attr-defined]
    assert not wrong, "\n".join(wrong)


def test_the_registry_knows_pydantic_and_nothing_else() -> None:
    roots = {name.split(".")[0] for name in imports(MODULES["rrl.registry"])}
    assert roots - set(sys.stdlib_module_names) == {"pydantic", "pydantic_core"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {room(m) for m, p in MODULES.items() if any(i.split(".")[0] == library for i in imports(p))}
    assert users
    assert users <= ONLY_IN[library]


def test_nothing_is_unpickled() -> None:
    for path in MODULES.values():
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path


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


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_a_command_imports_what_it_needs(tmp_path: Path, command: str) -> None:
    """What it imports is most of the time that it takes."""
    for run_id in ("aa", "bb"):
        make_run(tmp_path / "runs", run_id)
    assert loaded(tmp_path, *command.split()) <= MAY_IMPORT[command]


@pytest.mark.parametrize("kind", KIND_OF.values())
def test_components_are_public_names_of_their_rooms(kind: str) -> None:
    """And so are the bases that components of one's own subclass: `from rrl.agents import DAPG, Agent`."""
    ours = [cls for cls in map(registry.get, registry.names(kind)) if cls.__module__.startswith("rrl.")]
    assert ours
    for cls in {*ours, *map(base_of, ours)}:
        package = importlib.import_module(".".join(cls.__module__.split(".")[:2]))
        assert getattr(package, cls.__name__, None) is registry.implementation(cls)
        assert cls.__name__ in package.__all__


def test_settings_and_what_is_done_with_them_belong_together() -> None:
    """Where a component's settings stand in a module of their own: its class has all of them, and lacks nothing."""
    apart = [cls for cls in map(registry.get, components()) if registry.implementation(cls) is not cls]
    assert {cls.kind for cls in apart} == {"agent", "encoder"}
    for cls in apart:
        made = registry.implementation(cls)
        assert issubclass(made, cls)
        assert made.Config is cls.Config
        assert made.__doc__ == cls.__doc__
        assert not getattr(made, "__abstractmethods__", None)
        assert made.__module__ == cls.__module__.replace(".settings.", ".")


@pytest.mark.parametrize("package", KIND_OF)
def test_a_room_of_components_is_imported_at_no_cost(package: str, tmp_path: Path) -> None:
    """Neither a simulator nor torch: what needs them comes when it is asked for."""
    code = f"import sys, rrl.{package}; print(*{HEAVY} & {{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()


def test_environments_need_no_torch(tmp_path: Path) -> None:
    """Worker processes simulate and render; torch in each would cost memory and start-up time."""
    code = "import sys, rrl.envs, rrl.envs.vector, rrl.rollout.episodes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_the_picture_of_the_rooms_is_up_to_date() -> None:
    """It carries its arrows as text."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import draw_architecture as script

    sys.path.remove(str(ROOT / "scripts"))
    described = script.described(script.arrows(ROOT / "rrl"))
    drawn = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert described.replace(">", "&gt;") in drawn, "run: python scripts/draw_architecture.py"
