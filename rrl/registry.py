"""Components and their configs: everything that a gin file can name.

A component is a class with a nested, immutable pydantic `Config`, registered under its own class
name. This module knows pydantic and nothing else; gin is `rrl.config.ginfile`'s business, so components
work without it: `ResNet(ResNet.Config(depth=18), cameras=1)`.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeVar

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

ROOTS = {"experiment": "run", "sweep": "sweep", "pretraining": "pretrain", "probe": "probe"}
"""Kinds of what a whole gin file describes, each with the command that does it; the first is meant where nothing says
otherwise."""
KINDS = ("experiment", "environment", "encoder", "agent", "demos", "evaluator", "tracker", *list(ROOTS)[1:])
BUILT_IN = (
    "rrl.envs",
    "rrl.encoders",
    "rrl.agents",
    "rrl.demos",
    "rrl.evaluators",
    "rrl.trackers",
    "rrl.run.experiment",
    "rrl.sweeps",
    "rrl.pretrain",
    "rrl.probes",
)
PLUGIN_GROUP = "rrl.components"

# Numbers of settings: each has an end on both sides, so that a slip is told when it is read and not after hours.
# Where a number decides how much memory or how many processes are taken, its field has a closer end of its own.
FLOAT32 = 3.4e38
"""The largest number of the networks' arithmetic."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Torch's generators take 64 bits; half of them leave room to count on from a seed (several clones of a run)."""
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
"""As many as an int32 holds: steps within episodes are counted so."""
CountOrZero = Annotated[int, Field(ge=0, le=2**31 - 1)]
Width = Annotated[int, Field(gt=0, le=2**14)]
"""Units of a layer: two such layers are weights of 1 GB."""
Samples = Annotated[int, Field(gt=0, le=2**20)]
"""Samples that a network sees at once."""
Positive = Annotated[float, Field(gt=0, le=FLOAT32)]
PositiveOrZero = Annotated[float, Field(ge=0, le=FLOAT32)]
LogStd = Annotated[float, Field(ge=-20, le=20)]
"""Of exploration: its square, and what is divided by it, stay within float32."""


def mistake(field: str, message: str, hint: str) -> PydanticCustomError:
    """For validators: a mistake located at a field of the config, or of one that holds it."""
    return PydanticCustomError("config", "{message}", {"message": message, "field": field, "hint": hint})


def mistakes(misfits: Iterable[Mistake]) -> PydanticCustomError:
    """For validators: several mistakes at once."""
    first, *others = misfits
    context = {"message": first.message, "field": first.field, "hint": first.hint, "more": others}
    return PydanticCustomError("config", "{message}", context)


class Mistake(NamedTuple):
    """Why a part does not fit into a run."""

    field: str
    """The run's field that is to be changed: `encoder`, `agent`, `demos`, `iterations`, ..."""
    message: str
    hint: str
    """What to do."""


class Parts(Protocol):
    """What `Config.misfit` may look at: the whole run. Each part knows the *bases* of the other kinds alone."""

    @property
    def env(self) -> Any:
        """`EnvFactory.Config`"""

    @property
    def encoder(self) -> Any:
        """`Encoder.Config`"""

    @property
    def agent(self) -> Any:
        """`Agent.Config`"""

    @property
    def demos(self) -> Any:
        """`DemoSet.Config` or None"""

    @property
    def evaluators(self) -> tuple[Any, ...]:
        """`Evaluator.Config`s"""

    @property
    def trackers(self) -> tuple[Any, ...]:
        """`Tracker.Config`s"""

    @property
    def iterations(self) -> int:
        """Updates."""

    @property
    def precision(self) -> str:
        """Of the encoder."""

    @property
    def num_envs(self) -> int:
        """Environments that are stepped together."""


@dataclass(frozen=True)
class InputFile:
    """Marks a field of a `Config` whose text is the path of a file that a run reads: `Annotated[str, InputFile()]`.

    Gin files give it relative to themselves; a `Config` read from one holds it absolute. A subclass that gives the
    field another default need not repeat the mark.
    """

    suffix: str = ""
    """Of such files; it may be left out."""
    names: Callable[[type[Component]], Iterable[str]] = lambda component: ()
    """Texts that are no paths but names of the component's own, such as 'imagenet'."""
    remedy: Callable[[], str] = str
    """What to do if there is no such file."""


class UserError(Exception):
    """A mistake that the user can mend: shown as plain text, never as a traceback; exit code 2."""


class MachineError(RuntimeError):
    """A fault of the machine, which no setting mends: shown as plain text; exit code 1."""


class Component:
    """Base of everything that a gin file can name. Subclasses set `kind` once per family."""

    kind: ClassVar[str]
    implemented_in: ClassVar[str] = ""
    """Of a registered class that holds settings and facts alone: the module where the class of the same name is that
    does the work. It is imported when the component is built, so that what only asks (`rrl check`) needn't."""

    class Config(pydantic.BaseModel):
        """Immutable, strict settings of one component; every field documents itself."""

        model_config = pydantic.ConfigDict(
            extra="forbid",
            frozen=True,
            strict=True,
            allow_inf_nan=False,
            validate_default=True,
            use_attribute_docstrings=True,
        )
        component: ClassVar[type[Component]]
        later: ClassVar[frozenset[str]] = frozenset()
        """Fields that came later and change nothing at their default: there they are not written, so that texts,
        parameters and fingerprints of what is configured are those of earlier versions."""

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """What keeps this part from working in `run`; nothing: it fits. Pure: evaluated while validating."""
            return ()

        def label(self) -> str:
            """What titles, tables and reports call it: the class name, unless the component has more to say."""
            return self.component.__name__

        @classmethod
        def input_file(cls, field: str) -> InputFile | None:
            """The mark of a field that names a file; None: it names none."""
            infos = (base.model_fields.get(field) for base in cls.__mro__ if issubclass(base, Component.Config))
            marks = (mark for info in infos if info for mark in info.metadata if isinstance(mark, InputFile))
            return next(marks, None)


Config = Component.Config
C = TypeVar("C", bound=type[Component])

_components: dict[str, type[Component]] = {}
_plugins_loaded = False
left_out: list[str] = []
"""Names of plugins that can't be imported, as a note has told."""


def register(cls: C) -> C:
    """Class decorator: make `cls` known under its class name.

    Raises ValueError if the class has no `Config` of its own, no known `kind`, not all that its base asks for, or a
    name that another class already took.
    """
    name = cls.__name__
    if "Config" not in cls.__dict__:
        raise ValueError(f"{name} needs a nested `class Config(...)` of its own")
    if getattr(cls, "kind", None) not in KINDS:
        raise ValueError(f"{name} must subclass an encoder, agent, environment, ... base: it has no kind")
    missing = sorted({*getattr(cls, "__abstractmethods__", ()), *getattr(cls.Config, "__abstractmethods__", ())})
    if missing:
        raise ValueError(f"{name} lacks what its base asks for: {', '.join(missing)}")
    known = _components.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"{name} is already registered by {known.__module__}; choose another class name")
    cls.Config.component = cls
    _components[name] = cls
    return cls


def get(name: str) -> type[Component]:
    """The component class registered under `name`; KeyError if there is none."""
    load_plugins()
    return _components[name]


def names(kind: str | None = None) -> list[str]:
    """Sorted names of all registered components, or of one kind."""
    load_plugins()
    return sorted(name for name, cls in _components.items() if kind in (None, cls.kind))


def proposals(kind: str, **traits: Any) -> str:
    """Registered components of a kind whose class has these attributes, as an error proposes them: `@A(), @B()`."""
    matching = [
        name for name in names(kind) if all(getattr(_components[name], k, None) == v for k, v in traits.items())
    ]
    return ", ".join(f"@{name}()" for name in matching)


def implementation(component: type[Component]) -> type[Component]:
    """The class that does a registered component's work: itself, or the one that `implemented_in` tells of."""
    module = vars(component).get("implemented_in")  # its own: a subclass of one's own does its work itself
    if not module:
        return component
    working: type[Component] = getattr(importlib.import_module(module), component.__name__)
    return working


def build(config: Config, *args: Any, **context: Any) -> Any:
    """Make the component that `config` configures; `context` is what its constructor takes beside it."""
    return implementation(config.component)(config, *args, **context)  # type: ignore[call-arg]


def _tell(point: EntryPoint, what: str) -> None:
    print(f"note: the plugin {point.name} = {point.value} {what}", file=sys.stderr)


def load_plugins() -> None:
    """Import the built-in components and every module advertised in the entry-point group; one that can't be imported
    is told and left out."""
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for module in BUILT_IN:
        importlib.import_module(module)
    for point in entry_points(group=PLUGIN_GROUP):
        with warnings.catch_warnings(record=True) as caught:
            try:
                point.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a stranger's module raises, SystemExit too
                last = traceback.extract_tb(error.__traceback__)[-1]
                told = isinstance(error, SyntaxError) or last.filename.startswith(
                    "<"
                )  # it says where, or it is Python's
                where = "" if told else f" ({last.filename}:{last.lineno})"
                _tell(point, f"is left out: {type(error).__name__}: {error}{where}")
                left_out.append(point.name)
            else:
                package = point.module.partition(".")[0]
                if not any(cls.__module__.partition(".")[0] == package for cls in _components.values()):
                    _tell(point, "registers no component: is `@register` missing above its class?")
        for text in dict.fromkeys(str(warning.message) for warning in caught):
            _tell(point, f"says: {text}")


SOURCES = frozenset({".py", ".so", ".xml", ".stl", ".obj", ".msh"})
"""Files of a package that decide what its components compute: code, and the models that simulators read."""


def source_of(cls: type) -> str:
    """12 hex digits of a plugin's code: of the whole package, or the single file, that defines `cls`, and of those of
    the components that it inherits from. Empty for rrl's own, `unknown` where there is no file (a notebook)."""
    defined = {base.__module__ for base in cls.__mro__ if base is cls or issubclass(base, Component)}
    roots = {_root(module) for module in defined if module.split(".")[0] != "rrl"}
    return "-".join(code_of(root) for root in sorted(roots))


def plugin_code() -> list[Path]:
    """The files, and of packages the folders, of the plugins whose components are registered."""
    roots = {_root(cls.__module__) for cls in _components.values() if cls.__module__.split(".")[0] != "rrl"}
    files = [Path(file) for root in sorted(roots) if (file := getattr(sys.modules.get(root), "__file__", None))]
    return [file.parent if file.name == "__init__.py" else file for file in files]


def code_of(module: str) -> str:
    """12 hex digits of the code of an imported module; of a package: all of it. `unknown` if there is no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return "unknown"
    path, digest = Path(file), hashlib.sha256()
    if path.name != "__init__.py":
        digest.update(path.read_bytes())
        return digest.hexdigest()[:12]
    for part in sorted(path.parent.rglob("*")):
        name = part.relative_to(path.parent).as_posix()
        if part.suffix in SOURCES and part.is_file():
            digest.update(f"{name}\0{part.stat().st_size}\0".encode() + part.read_bytes())
    return digest.hexdigest()[:12]


def _root(module: str) -> str:
    """The outermost package of a module that has files of its own: a namespace, which others share, has none."""
    parts = module.split(".")
    outer = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return next((name for name in outer if getattr(sys.modules.get(name), "__file__", None)), module)
