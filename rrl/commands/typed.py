"""A command line, read again less strictly than the program reads it."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

from rrl.config import ginfile
from rrl.config.words import closest

OTHER_NAMES = {
    "check": "validate lint config",
    "describe": "explain",
    "doctor": "version",
    "eval": "evaluate test",
    "inspect": "try",
    "list": "ls components",
    "new": "create init scaffold plugin",
    "play": "enjoy watch viewer",
    "look": "gradcam grad-cam saliency attention",
    "probe": "leaderboard rank",
    "report": "plot plots",
    "resume": "continue restart",
    "run": "train start fit",
    "sweep": "tune multirun search",
    "ui": "mlflow dashboard tensorboard",
    "weights fetch": "download",
}
"""What commands are called elsewhere."""
HELP = ("--help", "-h")
GIN = ("--set", "--grid")
"""Options whose values are gin statements."""
SHELL_SPLITS = "the shell splits a setting at its spaces: put it in quotes"
_SAFE = re.compile(r"[\w@%+=:,./-]+")


@dataclass
class Line:
    """A command line, read as far as it can be."""

    path: list[str]
    """Names of group and command."""
    typed: list[str]
    """Those of them that were typed."""
    command: Any
    arguments: list[str] = field(default_factory=list)
    options: list[tuple[str, str | None]] = field(default_factory=list)
    """As typed, each with its value."""
    fixed: bool = False
    reason: str = ""
    """What was wrong with the words, where the program's own message would mislead."""
    wrong: bool = False
    """Something in it stays wrong."""

    def __str__(self) -> str:
        options = [part for name, value in self.options for part in (name, value) if part is not None]
        return " ".join(map(quoted, ("rrl", *self.path, *self.arguments, *options)))

    @property
    def known(self) -> dict[str, Any]:
        """The command's options."""
        return {name: p for p in self.command.params for name in (*p.opts, *p.secondary_opts) if name[0] == "-"}

    @property
    def takes(self) -> list[Any]:
        """The command's arguments."""
        return [param for param in self.command.params if param.param_type_name == "argument"]

    @property
    def first(self) -> str:
        """What its first argument is."""
        return str(self.takes[0].name) if self.takes else ""

    def fix(self, reason: str = "") -> None:
        """Note that something was put right."""
        self.fixed, self.reason = True, self.reason or reason

    def become(self, app: Any, name: str) -> None:
        """Be another command; what that doesn't take is left away."""
        self.path, self.command = [name], app.commands[name]
        self.options = [(option, value) for option, value in self.options if option in self.known]
        self.fix()


def quoted(word: str) -> str:
    """The word as a shell takes it."""
    if _SAFE.fullmatch(word):
        return word
    return f'"{word}"' if not re.search(r'["$`\\!]', word) else "'" + word.replace("'", "'\\''") + "'"


def read(app: Any, words: Sequence[str]) -> Line:
    """The line; with a group for its command if there is no telling which one is meant."""
    group, rest = app, list(words)
    line = Line([], [], app)
    while hasattr(group, "commands") and rest:
        word = rest.pop(0)
        if word in group.commands:
            line.typed += [word] if not line.fixed else []
        else:
            meant = _command(app, group, word, rest)
            if not meant:
                return line
            line.fix()
            word, *more = meant
            rest = more + rest
        line.path.append(word)
        line.command = group = group.commands[word]
    if not hasattr(group, "commands"):
        _read_rest(line, rest)
    return line


def _command(app: Any, group: Any, word: str, rest: list[str]) -> list[str]:
    """The words for what is no command of the group."""
    name = word.lstrip("-")
    if name in ("help", "h") and rest and rest[0] in group.commands:
        return [rest.pop(0), "--help"]
    other = next((meant for meant, names in OTHER_NAMES.items() if name in names.split()), "")
    inside = [outer for outer, inner in group.commands.items() if name in getattr(inner, "commands", ())]
    if name in group.commands:
        return [name]
    if group is app and other:
        return other.split()
    if len(inside) == 1:
        return [inside[0], name]
    if group is app and is_gin(word):
        return ["run", word]
    elsewhere = (
        {other: meant for meant, names in OTHER_NAMES.items() for other in names.split()} if group is app else {}
    )
    near = closest(name, [*group.commands, *elsewhere])
    return elsewhere.get(near[0], near[0]).split() if near else []


def _read_rest(line: Line, rest: list[str]) -> None:
    known = line.known
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            line.arguments.append(word)
            continue
        name, sign, value = word.partition("=")
        if sign:
            line.options.append((name, value))
        elif name in HELP or getattr(known.get(name), "is_flag", False):
            line.options.append((name, None))
        else:
            taken = rest.pop(0) if rest and not rest[0].startswith("--") else None
            line.options.append((name, taken))
        name, taken = line.options[-1]
        if taken is not None and (more := _belongs(name, taken, rest)):
            line.options[-1] = (name, " ".join((taken, *rest[:more])))
            line.fix(SHELL_SPLITS if name in GIN else "")
            del rest[:more]


def _belongs(name: str, value: str, rest: list[str]) -> int:
    """How many of the following words the shell has split from an option's value."""
    if name in GIN:
        return statement_goes_on(value, rest)
    more = {"--seeds": r"[\d,]+", "--budget": r"(?i)[smh]|(sec|min|h(ou)?r)\w*"}.get(name, r"(?!)")
    return next((n for n, word in enumerate(rest) if not re.fullmatch(more, word)), len(rest))


def statement_goes_on(text: str, rest: list[str]) -> int:
    """How many words complete the gin statement that begins with `text`."""
    for count in range(len(rest) + 1):
        whole = " ".join((text, *rest[:count]))
        key, sign, value = whole.partition("=")
        going_on = not value.strip() if sign else ":" not in key and _begins_with_sign(rest[count:])
        depth = sum(value.count(opening) - value.count(closing) for opening, closing in ("()", "[]"))
        if not going_on and depth <= 0:
            return count
        if rest[count : count + 1] and rest[count].startswith("--"):
            break
    return 0


def _begins_with_sign(words: Sequence[str]) -> bool:
    """Does `= value` follow, or a value alone?"""
    return bool(words) and (words[0].startswith("=") or bool(re.fullmatch(r"[-+.\d]+|True|False|None", words[0])))


def is_gin(word: str) -> bool:
    """Is it meant as a gin file?"""
    return word.endswith(".gin") or word.removeprefix("gin/").removesuffix(".gin") in ginfile.shipped()


# What a command takes


def placeholder(param: Any) -> str:
    """What stands for a value that was not given."""
    return {"sources": "FILE.gin"}.get(param.name, str(param.name).upper())


def annotation(command: Any, param: Any) -> Any:
    """The parameter's type in the command's function, and what typer says of it."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    annotation = hints[param.name]
    return annotation if get_args(annotation) else Annotated[annotation, None]


def kinds(command: Any, param: Any) -> list[Any]:
    """Types that the parameter takes, without None."""
    inner = get_args(annotation(command, param))[0]
    if get_origin(inner) is Literal:
        return [inner]
    return [kind for kind in get_args(inner) or (inner,) if kind is not type(None)]
