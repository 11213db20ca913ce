"""A hook of mkdocs: the pages under reference/, made from the components' schemas and the commands' help, so that
nothing there can be out of date.

    mkdocs build
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rrl import registry
from rrl.cli import app
from rrl.config.words import literal, type_words


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, lines in (("components", components()), ("commands", commands())):
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    return files


def components() -> Iterator[str]:
    """Every registered component, by kind: what it is, and its settings."""
    yield "# Components"
    yield "\nWhat a gin file can name: `@Name()`, with its settings as `Name.field = value`. `rrl describe NAME` shows"
    yield "the same, plugins included."
    for kind in registry.KINDS:
        yield f"\n## Kind: {kind}"
        for name in registry.names(kind):
            cls = registry.get(name)
            yield f"\n### {name}\n\n{_text(inspect.cleandoc(cls.__doc__ or ''))}\n"
            yield "| setting | default | takes | meaning |\n| --- | --- | --- | --- |"
            for key, field in cls.Config.model_fields.items():
                default = (
                    "required" if field.is_required() else f"`{literal(field.get_default(call_default_factory=True))}`"
                )
                cells = (f"`{key}`", default, type_words(field.annotation, field.metadata), field.description or "")
                yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Commands"
    yield "\n`rrl COMMAND --help` shows the same."
    yield from _command(typer.main.get_command(app), "rrl")


def _command(command: Any, name: str) -> Iterator[str]:
    for child, found in getattr(command, "commands", {}).items():
        yield from _command(found, f"{name} {child}")
    if not hasattr(command, "commands"):
        yield f"\n## {name}\n\n{_text(inspect.cleandoc(command.help or ''))}\n"
        yield "| | | default |\n| --- | --- | --- |"
        for parameter in command.params:
            names = parameter.opts if parameter.opts[0].startswith("-") else [parameter.name.upper()]
            default = "" if parameter.default is None or callable(parameter.default) else f"`{parameter.default}`"
            said = f"`{' '.join(names)}`", getattr(parameter, "help", None) or "", default
            yield "| " + " | ".join(_cell(text) for text in said) + " |"


def _cell(text: str) -> str:
    return " ".join(_text(text).split()).replace("|", "\\|")


def _text(text: str) -> str:
    """Docstrings are plain text: what would be a tag or emphasis to Markdown is neither."""
    parts = text.split("`")  # every second one is code
    parts[::2] = (part.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[") for part in parts[::2])
    return "`".join(parts)
