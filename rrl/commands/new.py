"""`rrl new`: a package with a component of one's own, its test and a gin file, to begin from."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rrl import registry
from rrl.commands.typed import quoted
from rrl.config.words import closest
from rrl.machine.paths import new_folder
from rrl.registry import UserError
from rrl.store import files

NEXT = {
    "encoder": (
        "rrl check quickstart {module}.gin",
        "rrl bench encoders --encoder {name}",
        "rrl run quickstart {module}.gin",
    ),
    "agent": ("rrl check {module}.gin", "rrl run {module}.gin"),
    "environment": ("rrl inspect {module}.gin encoder/mobilenetv2 --picture first.png", "rrl run {module}.gin"),
    "evaluator": ("rrl eval adroit_door_expert --with {module}.gin",),
}
"""Kinds of components, and what to type of each once it is installed."""


def write(kind: str, name: str, into: Path, say: Callable[[str], None]) -> None:
    """Write the package of a component of this kind and class name into a new folder of `into`, and say what to type
    next. UserError for a kind that has no package, a name that can't be used, or a folder that exists."""
    if kind not in NEXT:
        near = closest(kind, NEXT)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"rrl new makes an encoder, an agent, an environment or an evaluator; got {kind}{meant}")
    module = _module(name)
    folder = new_folder(into / module)
    paths = [path for path in sorted((_templates() / kind).iterdir()) if path.suffix in (".gin", ".py", ".toml")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    names = {f"My{kind.capitalize()}": name, f"my_{kind}": module, f"my-{kind}": module.replace("_", "-")}
    placeholder = re.compile("|".join(names))
    _check_name(name, module, placeholder.sub("", "\n".join(texts.values())))

    def filled(text: str) -> str:
        return placeholder.sub(lambda match: names[match[0]], text)

    with files.making(folder) as part:
        for file, text in texts.items():
            files.write_text(part / filled(file), filled(text))
    say(f"{folder}: {', '.join(map(filled, texts))}")
    say("next:")
    steps = ("pip install -e . pytest", "python -m pytest", "rrl describe {name}", *NEXT[kind])
    for line in (f"cd {quoted(str(folder))}", *(step.format(name=name, module=module) for step in steps)):
        say(f"  {line}")
    say(f"docs/your_{kind}.md says what else it may do")


def _templates() -> Path:
    """The packages that are copied: in the wheel, or in the checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "_templates", package.parent / "templates") if folder.is_dir())


def _module(name: str) -> str:
    """`MyHTTPNet` -> `my_http_net`; UserError for what is no class name in CamelCase."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or keyword.iskeyword(name):
        camel = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", name))
        such = camel if re.fullmatch(r"[A-Z][A-Za-z0-9]*", camel) and not keyword.iskeyword(camel) else "MyNet"
        raise UserError(
            f"a component is a class: its name is of letters and digits and begins with a capital, such as {such}; "
            f"got {name!r}"
        )
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_name(name: str, module: str, text: str) -> None:
    """UserError for a name that is taken: by a component, an installed module, or something that `text` uses."""
    if name in registry.names():
        raise UserError(f"{name} is a registered component already (`rrl describe {name}`): choose another name")
    if keyword.iskeyword(module) or find_spec(module) is not None:
        what = "a word of Python's own" if keyword.iskeyword(module) else "a Python module already"
        raise UserError(f"{name} would be the module {module}, which is {what}: choose another name")
    if re.search(rf"\b{name}\b", text):
        raise UserError(f"the package itself uses something that is called {name}: choose another name")
