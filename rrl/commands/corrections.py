"""Rules that put a mistyped command line right: each knows one kind of mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rrl import registry
from rrl.commands.typed import GIN, HELP, Line, is_gin, kinds, placeholder, statement_goes_on
from rrl.config import ginfile, repair
from rrl.config.grammar import ConfigError
from rrl.config.words import closest
from rrl.registry import UserError
from rrl.store.results import ROOT

VALUE = "value"
"""Stands in a gin statement where none was given."""


def _settings_without_option(app: Any, line: Line, error: Exception) -> None:
    """`Experiment.seed=3` among the files."""
    if "--set" not in line.known:
        return
    kept: list[str] = []
    rest = list(line.arguments)
    while rest:
        word = rest.pop(0)
        is_setting = re.match(r"[A-Za-z_][\w./]*\s*[=:](?!//)", word) or (rest and re.match(r"[=:]=?", rest[0]))
        if Path(word).exists() or not is_setting:
            kept.append(word)
            continue
        more = statement_goes_on(word, rest)
        text = " ".join((word, *rest[:more]))
        del rest[:more]
        line.options.append(("--set", text))
        line.fix(f"{text} is a setting, not a gin file: settings come after --set")
    line.arguments = kept


def _unknown_options(app: Any, line: Line, error: Exception) -> None:
    while unknown := [i for i, (name, _) in enumerate(line.options) if name not in (*line.known, *HELP)]:
        name, value = line.options[unknown[0]]
        guesses = (_same_option, _setting, _file, _command_or_its_option, _like_option)
        if not any(guess(app, line, unknown[0], name, value) for guess in guesses):
            line.wrong = True
            return
        line.fix()


def _same_option(app: Any, line: Line, index: int, name: str, value: str | None) -> bool:
    """`--dryrun`, `--num_envs` for `--num-envs`, `--seed` for `--seeds`."""

    def letters(option: str) -> str:
        return re.sub(r"[-_]", "", option).lower()

    same = {letters(option): option for option in line.known}
    for typed in (letters(name), letters(name) + "s", letters(name).removesuffix("s")):
        if typed in same:
            return _rename(line, index, same[typed], value)
    return False


def _rename(line: Line, index: int, option: str, value: str | None) -> bool:
    if line.known[option].is_flag and value is not None:
        line.arguments.append(value)
        value = None
    line.options[index] = (option, value)
    return True


def _setting(app: Any, line: Line, index: int, name: str, value: str | None) -> bool:
    """`--seed 3`, `--ResNet.depth=34`, `-m Experiment.seed=1,2`."""
    if "--set" not in line.known:
        return False
    if value and re.match(r"[A-Za-z_][\w./]*\.\w+\s*=", value):
        line.options[index] = ("--set", value)
        return True
    key = name.lstrip("-").replace("-", "_")
    fields = [key] if "." in key else [f"{owner}.{key}" for owner in _owners(key, line)]
    guess = next((g for f in fields if (g := repair.statement(f"{f} = {'True' if value is None else value}"))), "")
    if fields and not guess:  # perhaps several values, or none: see `_statements`
        guess = f"{fields[0]} = {VALUE if value is None else value}"
    if guess:
        line.options[index] = ("--set", guess)
    return bool(guess)


def _file(app: Any, line: Line, index: int, name: str, value: str | None) -> bool:
    """`--config x.gin`"""
    if value and line.first == "sources" and is_gin(value):
        line.arguments.insert(0, value)
        del line.options[index]
        return True
    return False


def _command_or_its_option(app: Any, line: Line, index: int, name: str, value: str | None) -> bool:
    """`rrl run --resume ID`; an option of another command that takes the same files."""
    plain = name.lstrip("-")
    if plain in app.commands and not hasattr(app.commands[plain], "commands"):
        line.become(app, plain)
        line.arguments, line.options = [value] if value else [], []
        return True
    for other, command in app.commands.items():
        if line.first and line.first == Line([], [], command).first and name in Line([], [], command).known:
            line.become(app, other)
            return True
    return False


def _like_option(app: Any, line: Line, index: int, name: str, value: str | None) -> bool:
    by_name = {option.lstrip("-"): option for option in line.known}
    close = closest(name.lstrip("-").replace("_", "-"), by_name)
    return bool(close) and _rename(line, index, by_name[close[0]], value)


def _owners(key: str, line: Line) -> list[str]:
    """Components with such a field: the run's own first; several elsewhere are no answer."""
    root, parts = _components(line.arguments)
    roots = [name for kind in registry.ROOTS for name in registry.names(kind)]
    owners = [name for name in repair.takers(key) if name == root or name not in roots]
    in_run = [name for name in (root, *owners) if name in owners and name in (root, *parts)]
    return in_run[:1] or (owners if len(owners) == 1 else [])


def _components(sources: Sequence[str]) -> tuple[str, list[str]]:
    """(root, names of the components) of what files describe, as far as they can be read; a sweep's own settings come
    as options, so what they say is of its runs."""
    try:
        root = ginfile.root_of(sources)[0].replace("Sweep", "Experiment")
    except UserError:
        return "Experiment", []
    try:
        text = ginfile.dumps(ginfile.load(sources, root=root)) if sources else ""
    except UserError:
        return root, []
    return root, re.findall(r"@(?:\w+/)*(\w+)\(\)", text)


def _statements(app: Any, line: Line, error: Exception) -> None:
    """Gin statements that gin does not read, or that no component takes."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    blamed = {problem.file for problem in problems}
    for index, (name, text) in enumerate(list(line.options)):
        if name not in GIN or text is None or text.endswith(f" = {VALUE}"):
            continue
        if blamed and not line.fixed and f'{name} "{text}"' not in blamed:
            continue
        each = name == "--grid"
        guess = repair.statement(text, each)
        key = guess.partition(" = ")[0]
        if "." not in key and (owners := _owners(key, line)):  # a field without its component
            guess = repair.statement(f"{owners[0]}.{guess}", each)
        if guess.replace(" ", "") == text.replace(" ", ""):
            continue
        if guess:
            line.options[index] = (name, guess)
            line.fix()
        elif not _several(app, line, index, text):
            line.wrong = True


def _several(app: Any, line: Line, index: int, text: str) -> bool:
    """`--set Experiment.seed=1,2,3`: a sweep's business."""
    key, _, values = text.partition("=")
    statements = [repair.statement(f"{key.strip()} = {item}") for item in values.strip(" ()[]").split(",")]
    if len(statements) < 2 or not all(statements) or line.first != "sources":
        return False
    field, items = statements[0].split(" = ")[0], [s.split(" = ")[1] for s in statements]
    seeds = field == "Experiment.seed"
    line.options[index] = ("--seeds", ",".join(items)) if seeds else ("--grid", f"{field} = ({', '.join(items)})")
    line.become(app, "sweep")
    line.fix(f"{text} are several values: a run takes one, a sweep goes through them")
    return True


def _values(app: Any, line: Line, error: Exception) -> None:
    """`--budget 2hours`, `--seeds 0-2`"""
    for index, (name, value) in enumerate(line.options):
        param = line.known.get(name)
        if param is None or value is None or str not in kinds(line.command, param):
            continue
        guess = ""
        if param.name == "budget":
            guess = _time(value)
        elif param.name in ("seeds", "episodes"):
            guess = _numbers(value)
        elif choice := re.match(rf"{name} takes ([\w, ]+); got {re.escape(value)}$", str(error)):
            guess = next(iter(closest(value, choice[1].split(", "))), "")
        if guess and guess != value:
            line.options[index] = (name, guess)
            line.fix()


def _time(text: str) -> str:
    """`2 hours` -> `2h`, `1h30m` -> `90m`, `30` -> `30m`"""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.lower())
    units = {"": 60, "s": 1, "m": 60, "h": 3600, "d": 86_400}
    if any(unit[:1] not in units for _, unit in parts) or not any(float(number) for number, _ in parts):
        return ""
    (number, unit), *more = parts
    if not more and unit[:1] != "d":
        return f"{number}{unit[:1] or 'm'}"
    seconds = sum(float(n) * units[u[:1]] for n, u in parts)
    return f"{seconds / 60:g}m" if seconds % 60 == 0 else f"{seconds:g}s"


def _numbers(text: str) -> str:
    """`0-2` -> `0,1,2`"""
    if ends := re.fullmatch(r"(\d{1,6})\s*(?:-|\.\.+|:)\s*(\d{1,6})", text.strip()):
        numbers = range(int(ends[1]), int(ends[2]) + 1)
        return ",".join(map(str, numbers)) if 0 < len(numbers) <= 100 else ""
    return ",".join(re.findall(r"\d+", text)) if re.fullmatch(r"[\d\s,;\[\](){}]+", text) else ""


def _other_things(app: Any, line: Line, error: Exception) -> None:
    """A run where a gin file belongs, a gin file where a run does, and names that are nearly right."""
    rule: Callable[[Any, Line, str], str | None] | None
    rule = {
        "sources": _source,
        "a": _compared,
        "run": _run,
        "policy": _run,
        "names": _folder,
        "kind": _kind,
        "name": _component,
    }.get(line.first)
    if len(line.path) > 1:
        rule = _of_this_name if line.first in ("name", "source") else None
    if rule is None:
        return
    most = len(line.arguments) if line.takes[0].nargs == -1 or rule is _compared else 1
    arguments: list[str] = []
    for index, word in enumerate(line.arguments):
        meant = rule(app, line, word) if index < most else word
        arguments += [meant] if meant else []
        if meant != word:
            line.fix()
    line.arguments = arguments


def _source(app: Any, line: Line, word: str) -> str | None:
    is_id = re.fullmatch(r"[0-9a-f]{4,32}", word) and any(ROOT.glob(f"{word}*/run.json"))
    if (Path(word) / "run.json").is_file() or is_id:
        line.fix(f"{word} is a run, not a gin file")
        if line.path != ["run"]:
            return str(Path(word if Path(word).is_dir() else next(ROOT.glob(f"{word}*")), "config.gin"))
        line.become(app, "resume")
    elif word.endswith(".safetensors"):
        line.become(app, "eval")
        line.fix(f"{word} is a policy, not a gin file")
    elif not Path(word).exists() and not _is_shipped(word):
        if word in registry.names():
            line.become(app, "describe")
            line.fix(f"{word} is a component, not a gin file")
            return word
        beside = Path(word).with_suffix(".gin") if Path(word).suffix in (".yaml", ".yml", ".json", ".py") else None
        return str(beside) if beside and beside.is_file() else next(iter(ginfile.near(word)), word)
    return word


def _is_shipped(word: str) -> bool:
    known = ginfile.shipped()
    bare = word.removesuffix(".gin").strip("/")
    return bare in known or any(name.startswith(f"{bare.removeprefix('gin/')}/") for name in known)


def _run(app: Any, line: Line, word: str) -> str | None:
    from rrl.run import policies

    if "--onnx" in dict(line.options):  # of a gin file, the graph of its encoder
        return word
    if is_gin(word) and word not in policies.shipped() and not (Path(word) / "run.json").is_file():
        line.become(app, "run")
        line.fix(f"{word} is a gin file, not a run: train it first")
        return word.removesuffix(".gin") if not Path(word).is_file() else word
    return word


def _compared(app: Any, line: Line, word: str) -> str | None:
    if is_gin(word) and line.path == ["compare"]:
        line.become(app, "diff")
        line.fix(f"{word} is a gin file, not a run: `rrl diff` compares settings")
    return word


def _of_this_name(app: Any, line: Line, word: str) -> str | None:
    """Shipped demonstrations and published weights."""
    from rrl.demos import sets
    from rrl.encoders import weights

    if line.path[-1] == "import" or Path(word).exists():  # other people's files
        return word
    known = list(weights.sources() if line.path[0] == "weights" else sets.shipped())
    close = (
        [word] if word in known else closest(word, known) or [name for name in known if len(word) > 2 and word in name]
    )
    return next(iter(close), word)


def _folder(app: Any, line: Line, word: str) -> str | None:
    """`rrl report runs/`: all runs of this folder, for which no name is needed."""
    return None if Path(word).resolve() == ROOT.resolve() else word


def _kind(app: Any, line: Line, word: str) -> str | None:
    from rrl.commands import new

    if line.path == ["new"]:
        return next(iter(closest(word, new.NEXT)), word)
    known = (*registry.KINDS, "policies", "files")
    if word in known:
        return word
    if word in registry.names():
        line.become(app, "describe")
        return word
    single = word.lower().removesuffix("s")
    near = [kind for kind in known if kind.startswith(single) or single.startswith(kind)] or closest(word, known)
    if not near and word.lower() in app.commands:
        line.become(app, word.lower())
        return None
    return near[0] if near else word


def _component(app: Any, line: Line, word: str) -> str | None:
    known = registry.names()
    if word not in known and is_gin(word):
        line.become(app, "check")
        return word
    typed, _, field = word.lstrip("@").removesuffix("()").rpartition("/")[2].partition(".")
    name = typed if typed in known else next(iter(closest(typed, known)), "")
    if not name or not field or line.path != ["describe"]:
        return name or word
    fields = registry.get(name).Config.model_fields
    return ".".join([name, *([field] if field in fields else closest(field, fields)[:1])])


def _what_is_missing(app: Any, line: Line, error: Exception) -> None:
    """Values that are not given, in capitals; a word too many is what a required option lacks, or
    else the task."""
    if any(name in HELP for name, _ in line.options):
        return
    given = {line.known[name].name for name, _ in line.options if name in line.known}
    most = -1 if any(param.nargs == -1 for param in line.takes) else len(line.takes)
    for name, param in line.known.items():
        spare = 0 <= most < len(line.arguments)
        if param.name not in given and (param.required or (spare and param.name == "task")):
            value = line.arguments.pop(most) if spare else str(param.name).upper()
            line.options.append((name, value))
            line.fix()
    for index, (name, given_value) in enumerate(line.options):
        if given_value is None and name in line.known and not line.known[name].is_flag:
            example = {"--set": f"Component.field = {VALUE}", "--grid": f"Component.field = ({VALUE}, {VALUE})"}
            line.options[index] = (name, example.get(name, str(line.known[name].name).upper()))
            line.fix()
    required = [param for param in line.takes if param.required]
    for param in required[len(line.arguments) :]:
        line.arguments.append(placeholder(param))
        line.fix()
    line.wrong |= 0 <= most < len(line.arguments)


RULES: tuple[Callable[[Any, Line, Exception], None], ...] = (
    _settings_without_option,
    _unknown_options,
    _statements,
    _values,
    _other_things,
    _what_is_missing,
)
