"""What a mistake on the command line is told: what is wrong in plain words, and the line to type.

Imported once there is a mistake. The words are read again (`typed`), then rules put right what they know
(`corrections`); of a line in which something stays wrong none is proposed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

import annotated_types

from rrl.commands.corrections import RULES
from rrl.commands.typed import Line, annotation, kinds, placeholder, read
from rrl.config.grammar import ConfigError
from rrl.config.words import type_words
from rrl.registry import UserError


def told(error: Exception, app: Any, words: Sequence[str]) -> str:
    """The text for a mistake of the user: a UserError, or one of the command line itself."""
    line = read(app, words)
    usage = not isinstance(error, UserError)
    where = " ".join(("rrl", *line.typed))
    what = _plainly(error, where, line) if usage else str(error)
    if not hasattr(line.command, "commands"):
        for rule in RULES:
            rule(app, line, error)
    if line.fixed and not line.wrong and (line.reason or not _elsewhere(error, words)):
        return f"{line.reason or what}\n  try: {line}"
    return f"{what}\n  `{where} --help` shows what it takes" if usage else what


def _elsewhere(error: Exception, words: Sequence[str]) -> bool:
    """Does a mistake stand in a file, which no other words would mend?"""
    problems = error.problems if isinstance(error, ConfigError) else ()
    return any(problem.line or not (problem.file.startswith("--") or problem.file in words) for problem in problems)


def _plainly(error: Exception, where: str, line: Line) -> str:
    said, kind, param = str(getattr(error, "message", error)), type(error).__name__, getattr(error, "param", None)
    if kind == "NoSuchOption":
        return f"{where} has no option {getattr(error, 'option_name', '')}"
    if unknown := re.match(r"No such command '(.*?)'", said):
        return f"{where} has no command {unknown[1] or repr('')}"
    if kind == "BadOptionUsage":
        return f"{getattr(error, 'option_name', '')} needs a value"
    if kind == "MissingParameter" and param is not None:
        return f"{where} needs {placeholder(param)}: {param.help}"
    if extra := re.match(r"Got unexpected extra argument\S* \((.*)\)", said):
        return f"{where} takes fewer words: {extra[1]} is one too many"
    if kind == "BadParameter" and param is not None:
        value = next((value for name, value in line.options if name in param.opts), "")
        return f"{param.opts[0]} takes {_takes(line.command, param)}; got {value}"
    return said


def _takes(command: Any, param: Any) -> str:
    """`a whole number >= 1`"""
    _, *info = get_args(annotation(command, param))
    limits = [(annotated_types.Ge, "min"), (annotated_types.Le, "max")]
    found = [limit(value) for limit, name in limits for i in info if (value := getattr(i, name, None)) is not None]
    return type_words(kinds(command, param)[0], found)
