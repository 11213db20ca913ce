"""Configs in words and as text: types, suggestions, gin source, flat parameters, descriptions."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from rrl import registry
from rrl.config import files
from rrl.config.grammar import Binding, Macro, Reference, parse
from rrl.registry import Config, UserError

_SCALARS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "True or False",
    type(None): "None",
}
_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "a string": "strings",
    "True or False": "True or False",
}


def closest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The known names most like `name`, best first; none if nothing is alike."""
    by_lower = {other.lower(): other for other in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, count, 0.55)]


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean depth? (one of depth, weights)`"""
    known = list(known)
    close = closest(name, known)
    return (f"did you mean {close[0]}? " if close else "") + f"(one of {', '.join(known)})"


def either(words: Iterable[str]) -> str:
    """`a, b or c`"""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def a_kind(kind: str) -> str:
    """`an encoder`"""
    return kind if kind == "demos" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def component_types(annotation: Any) -> tuple[type[Config], ...]:
    """The `Config` classes that stand anywhere in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return (annotation,)
    return tuple(config for part in get_args(annotation) for config in component_types(part))


def candidates(accepted: tuple[type[Config], ...]) -> list[str]:
    """Names of the registered components whose `Config` is one of these types."""
    return [name for name in registry.names() if accepted and issubclass(registry.get(name).Config, accepted)]


def component_words(accepted: tuple[type[Config], ...]) -> str:
    """`an encoder (MobileNetV2, ResNet or State)`"""
    names = candidates(accepted)
    kinds = sorted({registry.get(name).kind for name in names})
    if not names:
        return either(config.__qualname__.removesuffix(".Config") for config in accepted)
    if len(kinds) == 1 and len(names) == 1 and names != registry.names(kinds[0]):
        return names[0]
    return f"{either(map(a_kind, kinds))} ({either(names)})"


def type_words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type as the errors and `rrl describe` name it, such as `18, 34 or 50` or `a number > 0`."""
    limits = "".join(_limits(metadata))
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return type_words(parts[0], [*parts[1:], *metadata])
    if origin is Literal:
        return either(repr(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return either(type_words(part) + (limits if part is not type(None) else "") for part in parts)
    if origin is tuple or annotation is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"a tuple of {_plural(parts[0])}{limits}"
        return f"a tuple ({', '.join(map(type_words, parts))}){limits}"
    if accepted := component_types(annotation):
        return component_words(accepted)
    return _SCALARS.get(annotation, getattr(annotation, "__name__", str(annotation))) + limits


def _plural(annotation: Any) -> str:
    word = type_words(annotation)
    if accepted := component_types(annotation):
        kinds = {registry.get(name).kind for name in candidates(accepted)}
        return word.replace(a_kind(*kinds), f"{kinds.pop()}s", 1) if len(kinds) == 1 else word
    for one, many in _PLURALS.items():
        if word.startswith(one):
            return many + word[len(one) :]
    return word


def _limits(metadata: Iterable[Any]) -> Iterator[str]:
    words: list[tuple[type[Any], str, str]] = [
        (annotated_types.Ge, "ge", " >= {}"),
        (annotated_types.Gt, "gt", " > {}"),
        (annotated_types.Le, "le", " <= {}"),
        (annotated_types.Lt, "lt", " < {}"),
        (annotated_types.MultipleOf, "multiple_of", ", a multiple of {}"),
        (annotated_types.MinLen, "min_length", ", at least {} long"),
        (annotated_types.MaxLen, "max_length", ", at most {} long"),
    ]
    # `Field(...)` in a type inside another one, such as `Annotated[int, Field(gt=0)] | None`, holds them.
    flat = [part for limit in metadata for part in (limit.metadata if isinstance(limit, FieldInfo) else [limit])]
    limits = [
        form.format(getattr(limit, name)) for limit in flat for kind, name, form in words if isinstance(limit, kind)
    ]
    for index, limit in enumerate(limits):
        yield (" and" if index and limit.startswith((" >", " <")) else "") + limit


def literal(value: Any) -> str:
    """A value as gin source; components as `@Name()`."""
    if isinstance(value, Config):
        return f"@{value.component.__name__}()"
    if isinstance(value, (Reference, Macro)):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def summary(field: FieldInfo) -> str:
    """First paragraph of a field's docstring, on one line."""
    return " ".join((field.description or "").split("\n\n")[0].split())


def describe(name: str) -> str:
    """What `rrl describe NAME` prints: a component's docstring, its fields with types, defaults, docstrings; or of
    `Component.field` that field alone.

    Raises UserError for an unknown name.
    """
    owner, _, wanted = name.partition(".")
    if owner not in registry.names():
        hint = meant(owner, registry.names())
        if registry.left_out:
            hint = f"is it of a plugin that can't be imported ({', '.join(registry.left_out)})? Else {hint}"
        raise UserError(f"no component is named {owner}\n  {hint}")
    cls = registry.get(owner)
    fields = cls.Config.model_fields
    if wanted and wanted not in fields:
        raise UserError(f"{owner} has no field {wanted}\n  {meant(wanted, fields)}")
    lines = [f"{owner} ({cls.kind})"]
    if cls.__dict__.get("__doc__") and not wanted:
        lines += ["", *_indented(inspect.cleandoc(cls.__doc__ or ""), 2)]
    for key in [wanted] if wanted else fields:
        field = fields[key]
        default = f" = {literal(field.get_default(call_default_factory=True))}"
        lines += ["", f"  {owner}.{key}{' (required)' if field.is_required() else default}"]
        lines += [f"      takes {type_words(field.annotation, field.metadata)}"]
        lines += _indented(inspect.cleandoc(field.description or ""), 6)
    return "\n".join(lines)


def _indented(text: str, by: int) -> list[str]:
    return [" " * by + line if line else "" for line in text.split("\n")]


def _children(value: Any, path: str) -> Iterator[tuple[str, Config]]:
    """The components directly inside a field's value, each with its place such as `evaluators.0`."""
    if isinstance(value, Config):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _children(item, f"{path}.{index}")


def _fields(config: Config) -> Iterator[tuple[str, Any]]:
    """What is said of a config: name and value of its fields, but for `later` ones at their default."""
    return ((name, value) for name, value in _held(config) if not _silent(config, name))


def _held(config: Config) -> Iterator[tuple[str, Any]]:
    """Name and value of all its fields."""
    return ((name, getattr(config, name)) for name in type(config).model_fields)


def _silent(config: Config, name: str) -> bool:
    """Is this field not said of a config: a `later` one at its default?"""
    return name in config.later and bool(getattr(config, name) == type(config).model_fields[name].default)


def _identity(config: Config) -> str:
    """Text equal for configs that gin source cannot tell apart (-0.0 and 0.0 differ, unlike under `==`)."""

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return f"({' '.join(map(text, value))})"
        return _identity(value) if isinstance(value, Config) else repr(value)

    fields = " ".join(f"{name}={text(value)}" for name, value in _fields(config))
    return f"{config.component.__name__}({fields})"


_SCOPE = "_gin_scope"


def set_scope(config: Config, scope: str) -> None:
    """Remember the gin scope in which a file describes a component, "" for none: `dumps` writes it so again.

    Where pydantic keeps cached properties too, which it neither compares nor hashes nor shows.
    """
    config.__dict__[_SCOPE] = scope


def scope_of(config: Config) -> str | None:
    """The gin scope in which a file describes a component; None for one that comes from no file."""
    scope: str | None = config.__dict__.get(_SCOPE)
    return scope


def dumps(
    config: Config,
    folder: Path | None = None,
    project: Path | None = None,
    *,
    own_scopes: bool = True,
    silent: bool = False,
) -> str:
    """Gin source that says the fields of `config` and of all components in it: `loads(dumps(c)) == c`.

    For a file in `folder`, paths below `project` (None: `folder`) are relative to it, so that both can move; others are
    absolute. Components keep the gin scopes of the file that they come from. Others, or all unless `own_scopes` (then
    equal configs are equal texts), get one for each where a component occurs with several settings, named after its
    place. `silent`: `later` fields at their default stand there as comments, for people.
    """
    blocks: dict[str, list[str]] = {}
    for name, field, node, text in statements(config, folder, project, own_scopes=own_scopes, silent=silent):
        unsaid = "# at its default: " if _silent(node, field) else ""
        blocks.setdefault(name, []).append(f"{unsaid}{name}.{field} = {text}")
    return "\n\n".join("\n".join(block) for block in blocks.values()) + "\n"


def statements(
    config: Config,
    folder: Path | None = None,
    project: Path | None = None,
    *,
    own_scopes: bool = True,
    silent: bool = False,
) -> Iterator[tuple[str, str, Config, str]]:
    """What `dumps` says, statement by statement: (name of the component, with its gin scope; field; the component;
    gin source of the field's value)."""
    nodes = dict(_nodes(config))
    scopes = _scopes(nodes, own_scopes)

    def full_name(node: Config) -> str:
        scope = scopes[_identity(node)]
        return f"{scope}/{node.component.__name__}" if scope else node.component.__name__

    def source(value: Any) -> str:
        if isinstance(value, Config):
            return f"@{full_name(value)}()"
        if isinstance(value, tuple):
            return f"({', '.join(map(source, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, float):
            return repr(float(value))
        if value is None or isinstance(value, (bool, int, str)):
            return repr(value)
        raise TypeError(f"gin files hold no {type(value).__name__}: {value!r}")

    for node, _ in nodes.values():
        unsaid = [(name, value) for name, value in _held(node) if silent and _silent(node, name)]
        for name, value in [*_fields(node), *unsaid]:
            yield full_name(node), name, node, source(files.written(node, name, value, folder, project))


_Nodes = dict[str, tuple[Config, str]]
"""Of a whole config: identity of each component -> (component, its first place)."""


def _nodes(config: Config) -> Iterator[tuple[str, tuple[Config, str]]]:
    waiting, seen = [(config, "")], set()
    while waiting:
        node, place = waiting.pop()
        if (key := _identity(node)) not in seen:
            seen.add(key)
            yield key, (node, place)
            inner = [(child, where) for where, child in _parts(node, place)]
            waiting += reversed(inner)


def _parts(node: Config, place: str) -> Iterator[tuple[str, Config]]:
    for name, value in _fields(node):
        yield from _children(value, f"{place}.{name}" if place else name)


def _scopes(nodes: _Nodes, own: bool) -> dict[str, str]:
    """The gin scope of each component, such that every reference is read as what it stands for."""
    count = Counter(node.component.__name__ for node, _ in nodes.values())
    scopes: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    """(component, scope)"""

    def put(key: str, scope: str) -> None:
        scopes[key] = scope
        taken.add((nodes[key][0].component.__name__, scope))

    def by_place(key: str) -> str:
        scope = base = nodes[key][1].replace(".", "_")
        number = 1
        while scope in {other.split("/")[0] for _, other in taken if other}:
            number += 1
            scope = f"{base}_{number}"
        return scope

    root, *others = nodes
    put(root, "")
    unnamed = []
    for key in others:
        name, scope = nodes[key][0].component.__name__, scope_of(nodes[key][0]) if own else None
        if scope is not None and (name, scope) not in taken:
            put(key, scope)
        elif count[name] == 1:
            put(key, "")
        else:
            unnamed.append(key)
    for key in unnamed:
        put(key, by_place(key))
    while misread := _misread(nodes, scopes, taken):
        for key in misread:
            put(key, by_place(key))
    return scopes


def _misread(nodes: _Nodes, scopes: dict[str, str], taken: set[tuple[str, str]]) -> list[str]:
    """Components that are referred to without a scope where gin, which stays in a scope, would find another one."""
    found: dict[str, None] = {}
    waiting, seen = [(next(iter(nodes)), "")], set()
    while waiting:
        key, inside = waiting.pop()
        node, scope = nodes[key][0], scopes[key]
        if (key, scope or inside) in seen:
            continue
        seen.add((key, scope or inside))
        parts = inside.split("/") if inside else []
        prefixes = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        if not scope and any((node.component.__name__, prefix) in taken for prefix in prefixes):
            found[key] = None
        waiting += [(_identity(child), scope or inside) for _, child in _parts(node, "")]
    return list(found)


def files_of(config: Config) -> list[Path]:
    """The files that a config, and all components in it, name."""
    found: list[Path] = []
    for name, value in _fields(config):
        texts = (text for text in (value if isinstance(value, tuple) else (value,)) if isinstance(text, str))
        found += filter(None, (files.named(config, name, text) for text in texts))
        for _, child in _children(value, name):
            found += files_of(child)
    return list(dict.fromkeys(found))


def flatten(config: Config, project: Path | None = None, *, silent: bool = False) -> dict[str, str]:
    """Flat parameters, such as `{"encoder": "ResNet", "encoder.depth": "34", "evaluators.0": "Video"}`: the same on
    every machine, files as `files.shown` names them. `silent`: with `later` fields at their default, for people."""
    return {place: text for place, text, _, _ in places(config, project, silent=silent)}


def places(
    config: Config, project: Path | None = None, *, silent: bool = False
) -> Iterator[tuple[str, str, Config, str]]:
    """What `flatten` says, one by one: (name, value, the component that holds it, its field there)."""

    def visit(node: Config, prefix: str) -> Iterator[tuple[str, str, Config, str]]:
        for name, held in (_held if silent else _fields)(node):
            place, value = prefix + name, files.shown(node, name, held, project)
            children = list(_children(value, place))
            if not children:
                yield place, value if isinstance(value, str) else literal(value), node, name
            for child_place, child in children:
                yield child_place, child.component.__name__, node, name
                yield from visit(child, f"{child_place}.")

    return visit(config, "")


def flatten_text(text: str, filename: str = "<string>", root: str = "Experiment") -> dict[str, str]:
    """`flatten` of a text that `dumps` wrote, by any version: its components and fields need not exist any more.

    What stands below a line that cannot be read is left out.
    """
    fields: dict[str, dict[str, Any]] = {}
    for statement in parse(text, filename)[0]:
        if isinstance(statement, Binding) and statement.field:
            component = statement.label.rpartition(".")[0]
            fields.setdefault(component, {})[statement.field] = statement.value
    flat: dict[str, str] = {}

    def put(place: str, value: Any, above: tuple[str, ...]) -> None:
        if isinstance(value, Reference):
            flat[place] = value.name
            visit("/".join((*value.scopes, value.name)), f"{place}.", above)
        elif isinstance(value, tuple) and any(isinstance(item, Reference) for item in value):
            for index, item in enumerate(value):
                put(f"{place}.{index}", item, above)
        else:
            flat[place] = value if isinstance(value, str) else literal(value)

    def visit(component: str, prefix: str, above: tuple[str, ...]) -> None:
        if component not in above:  # a text that was damaged may go in circles
            for field, value in fields.get(component, {}).items():
                put(prefix + field, value, (*above, component))

    visit(root, "", ())
    return flat
