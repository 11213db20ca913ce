"""The gin statement that a line was probably meant as: `ResNet.depth: 34` -> `ResNet.depth = 34`.

A guess counts only if gin reads it and, where it binds a field of a registered component, the field takes the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rrl import registry
from rrl.config.characters import plain
from rrl.config.grammar import Binding, Reference, macros_in, parse, references_in
from rrl.config.refusals import fits, guesses
from rrl.config.words import candidates, closest, component_types, literal, type_words

_LINE = re.compile(r"(?:set\s+|let\s+|--?\s*|[@%&$])?([A-Za-z_][\w./]*)\s*(==|:=|=>|->|<-|[:=]|\s)\s*(\S.*)")
_IN_BLOCK = re.compile(r"([A-Za-z_][\w/]*)\s*:\s*(\w+)\s*=(?!=)")
_INCLUDE = re.compile(r"#?\s*include\s*[:=(<]?\s*['\"]?([^'\"<>()\s;]+)['\"]?[)>;]*$")
_WORDS = {"True": ("true", "yes", "on"), "False": ("false", "no", "off"), "None": ("none", "null", "nil", "~")}
_CLOSING = {"(": ")", "[": "]"}


def statement(line: str, each: bool = False) -> str:
    """`key = value` that the line was probably meant as, or `include 'file'`; "" if nothing comes to mind.

    `each`: the value is a tuple of values for the field, as a sweep's grid has it.
    """
    if "\\" in line:  # what Python makes of it is nobody's guess
        return ""
    text = _IN_BLOCK.sub(r"\1.\2 =", plain(line).strip())
    if text[:1] in "'\"" and text[:1] == text[-1:]:
        text = text[1:-1]
    if include := _INCLUDE.fullmatch(text):
        return f"include '{include[1]}'"
    match = _LINE.fullmatch(text)
    if match is None or match[1] in ("include", "import", "from"):
        return ""
    sign, said = match[2].strip(), match[3].strip()
    for key in _keys(match[1]):
        # `del x` is no macro named del.
        for value in _values(said, key) if sign or "." in key else (said,):
            if _right(guess := f"{key} = {value}", each):
                return guess
    return ""


def expected(line: str) -> str:
    """`DAPG.trajectories must be a whole number > 0` for a line that gives a bare word; "" where the line names no
    field of a component, or one that takes strings or components: quotes or brackets are what it lacks."""
    match = _LINE.fullmatch(plain(line).strip())
    binding = None if match is None else _binding(f"{match[1]} = None")
    if binding is None or not binding.field or binding.name not in registry.names():
        return ""
    config_type = registry.get(binding.name).Config
    info = config_type.model_fields.get(binding.field)
    if info is None or component_types(info.annotation) or fits(config_type, {}, binding.field, "a string"):
        return ""
    return f"{binding.label} must be {type_words(info.annotation, info.metadata)}"


def takers(field: str) -> list[str]:
    """Names of the registered components that have such a field."""
    return [name for name in registry.names() if field in registry.get(name).Config.model_fields]


def _keys(key: str) -> Iterator[str]:
    """The key, or what is most like it among components and their fields."""
    path, _, field = key.rpartition("." if "." in key else "/")
    if not path:
        yield key
        return
    *scopes, name = path.rpartition(".")[2].split("/")
    known = closest(name, registry.names()) if name not in registry.names() else [name]
    for component in known:
        fields = registry.get(component).Config.model_fields
        for exact in [field] if field in fields else closest(field, fields):
            yield "/".join((*scopes, f"{component}.{exact}"))


def _values(text: str, key: str) -> Iterator[str]:
    """The value in gin's words, most likely first."""
    yield text
    if text.startswith("$"):  # a shell's variable, which nobody fills in here
        return
    bare = text.split(" //")[0].split(" #")[0].strip().rstrip(";,").strip()
    yield bare
    yield from (word for word, others in _WORDS.items() if bare.lower() in others)
    inner = bare.strip("'\"")
    name = inner.lstrip("@&%").removesuffix("()")
    if re.fullmatch(r"[\w/]+", name):
        scope, _, last = name.rpartition("/")
        yield from (f"@{f'{scope}/' if scope else ''}{other}()" for other in closest(last, _components(key)))
    if not re.search(r"['\"]", inner):
        yield f"'{inner}'"
    yield from (bare[:end] for end in range(len(bare) - 1, 0, -1) if set(bare[end:]) <= set(_CLOSING.values()))
    yield from _bracketed(bare)
    if re.fullmatch(r"\d{1,3}(,\d{3})+", bare):
        yield bare.replace(",", "")
    if re.fullmatch(r"0,\d+", bare):
        yield bare.replace(",", ".")
    yield bare.lstrip("0")
    yield from _like(text, key)


def _bracketed(text: str) -> Iterator[str]:
    """With the brackets, and the commas between items, that may have been left out."""
    for shape in dict.fromkeys((text, re.sub(r"(?<=[^\s,([])\s+(?=[^\s,)\]])", ", ", text))):
        yield shape
        yield from (shape + closing for opening, closing in _CLOSING.items() if shape.startswith(opening))
        yield from (opening + shape for opening, closing in _CLOSING.items() if shape.endswith(closing))
        yield f"({shape})" if "," in shape else f"({shape},)"


def _like(text: str, key: str) -> Iterator[str]:
    """Values like one that gin reads and the field does not take: `did you mean 'door'?`"""
    for shape in (text, f"'{text}'"):
        binding = _binding(f"{key} = {shape}")
        if binding is not None and binding.field and binding.name in registry.names():
            info = registry.get(binding.name).Config.model_fields.get(binding.field)
            yield from (literal(guess) for guess in (guesses(binding.value, info.annotation) if info else ()))


def _components(key: str) -> list[str]:
    """What a key's field takes of components; all if it is nobody's field."""
    path, _, field = key.rpartition(".")
    name = path.rpartition("/")[2]
    if name not in registry.names() or field not in registry.get(name).Config.model_fields:
        return registry.names()
    return candidates(component_types(registry.get(name).Config.model_fields[field].annotation))


def _binding(text: str) -> Binding | None:
    """The one binding that a text is, if it is one."""
    statements, error = parse(text, "")
    one = statements[0] if len(statements) == 1 and error is None else None
    return one if isinstance(one, Binding) else None


def _right(text: str, each: bool) -> bool:
    binding = _binding(text)
    if binding is None or not binding.field or binding.name not in registry.names():
        return binding is not None
    config_type = registry.get(binding.name).Config
    if binding.field not in config_type.model_fields:
        return False
    if any(macros_in(binding.value)):  # they may be anything
        return True
    if not all(other.called and other.name in registry.names() for other in references_in(binding.value)):
        return False
    if each and isinstance(binding.value, str):
        return ".." in binding.value
    values = binding.value if each else [binding.value]
    return isinstance(values, (list, tuple)) and all(
        fits(config_type, {}, binding.field, _stand_in(value)) for value in values
    )


def _stand_in(raw: object) -> object:
    """A parsed value as a config takes it, with components that are not made yet."""
    if isinstance(raw, (list, tuple)):
        return tuple(map(_stand_in, raw))
    return registry.get(raw.name).Config.model_construct() if isinstance(raw, Reference) else raw
