"""From bindings to configs: follow references as gin's runtime would, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from rrl import registry
from rrl.config import limits
from rrl.config.files import Finder, find
from rrl.config.grammar import LONGEST, Binding, Block, Macro, Place, Problem, Reference, cut, macros_in, references_in
from rrl.config.refusals import by_field, own_words, refusal
from rrl.config.words import (
    a_kind,
    candidates,
    closest,
    component_types,
    component_words,
    literal,
    meant,
    scope_of,
    set_scope,
    summary,
    type_words,
)
from rrl.registry import Config, InputFile, UserError

REQUIRED = "gin.REQUIRED"
_BAD: Any = type("Bad", (), {"__repr__": lambda self: "<reported already>"})()
"""Stands for a value whose problem was reported."""


@dataclass(frozen=True)
class Origin:
    """Where the value of a setting comes from."""

    bindings: tuple[Binding, ...]
    """The one of the setting, and those of the macros that its value goes through, in this order."""
    overridden: tuple[Binding, ...]
    """Those that would decide it if these weren't there, the strongest first."""


Scope = tuple[str, ...]


class Layer(IntEnum):
    """Where a binding comes from; the higher one wins."""

    INCLUDED = 0
    FILE = 1
    OVERRIDE = 2


Layered = tuple[Binding, Layer]


class Names:
    """Names of components and fields that the texts use wrongly, in bindings used or not."""

    def __init__(self, bindings: Iterable[Layered], blocks: Iterable[Block]) -> None:
        self.problems: list[Problem] = []
        self.unknown: dict[str, list[Place]] = {}
        """Component names that nobody registered, and where they stand."""
        self.expected: dict[str, list[str]] = {}
        """What would fit where an unknown name is referred to."""
        self.misnamed: set[Binding] = set()
        self.excused: set[tuple[str, str]] = set()
        """(component, field) that was bound under a misspelt name: neither missing nor known."""
        known = set(registry.names())
        for block in blocks:
            if block.name not in known:
                self.unknown.setdefault(block.name, []).append(block.place)
        for binding, _ in bindings:
            if not binding.field:
                continue
            if binding.name not in known:
                self.misnamed.add(binding)
                if not binding.in_block:  # the block's head was noted instead
                    self.unknown.setdefault(binding.name, []).append(binding.place)
            elif binding.field not in registry.get(binding.name).Config.model_fields:
                self._unknown_field(binding)

    def _unknown_field(self, binding: Binding) -> None:
        self.misnamed.add(binding)
        fields = registry.get(binding.name).Config.model_fields
        hint = meant(binding.field, fields) if fields else f"{binding.name} has no settings"
        self.problems.append(Problem.at(binding.place, f"{binding.name} has no field {binding.field}", hint))
        self.excused |= {(binding.name, field) for field in closest(binding.field, fields)}

    def unknown_components(self, files: Sequence[str]) -> Iterator[Problem]:
        """One problem for each unknown name, at its first place in the order of `files`."""
        for name, places in self.unknown.items():
            first, *others = sorted(set(places), key=lambda place: (files.index(place.file), place.line))
            also = f" (also at {', '.join(map(str, others))})" if others else ""
            hint = meant(name.rsplit(".", 1)[-1], self.expected.get(name) or registry.names())
            if registry.left_out:
                which = f"{'plugin' if len(registry.left_out) == 1 else 'plugins'} {', '.join(registry.left_out)}"
                hint = f"is it of the {which}, which can't be imported (the note above says why)? Else {hint}"
            elif not hint.startswith("did you mean"):
                hint += "; if a plugin has it, install that"
            yield Problem.at(first, f"no component is named {name}{also}", hint)


@dataclass(frozen=True)
class _Slot:
    """Where a value goes to (`target` binds a field) and where it was written (`source`: a macro, maybe)."""

    target: Binding
    source: Binding
    info: FieldInfo
    macros: tuple[str, ...] = ()
    """The macros on the way from target to source."""
    file: InputFile | None = None
    """The mark of a field that names files."""

    @property
    def accepted(self) -> tuple[type[Config], ...]:
        """The `Config` classes that the field takes."""
        return component_types(self.info.annotation)

    @property
    def words(self) -> str:
        """The field's type."""
        return type_words(self.info.annotation, self.info.metadata)


class Resolver:
    """Builds the configs that bindings describe (later ones win); notes what it used and what is wrong."""

    def __init__(
        self,
        bindings: Iterable[Binding],
        names: Names,
        complete: bool,
        remedy: Callable[[str], str] = lambda field: "",
        folders: Mapping[str, Sequence[Path]] | None = None,
        finder: Finder = find,
    ) -> None:
        """`complete`: False if a text could not be read to its end, so that nothing can be called missing.

        `remedy`: what to do about a field that must be bound, such as `Experiment.agent`; "": bind it.
        `folders`: by the name of a text, where the files that it names are looked for, by `finder`.
        """
        self._unfolded = 0
        self.problems: list[Problem] = []
        self.used: set[Binding] = set()
        self.referred: dict[str, list[str]] = {}
        """Components of this run, each with the references to it as written."""
        self.macros: dict[str, Binding] = {}
        self.fields: dict[str, dict[str, dict[str, Binding]]] = {}
        """Bindings by component, scope and field."""
        self.meant: set[str] = set()
        """Macros that an unknown name was probably meant as."""
        self.replaced: dict[str, list[Binding]] = {}
        """By label, bindings that a later one takes the place of."""
        for binding in bindings:
            if binding.field:
                taken = self.fields.setdefault(binding.name, {}).setdefault(binding.scope, {})
            else:
                taken = self.macros
            key = binding.field or binding.name
            if key in taken:
                self.replaced.setdefault(binding.label, []).append(taken[key])
            taken[key] = binding
        self._scopes = {scope for scopes in self.fields.values() for scope in scopes}
        self._names, self._complete, self._remedy = names, complete, remedy
        self._folders, self._finder = folders or {}, finder
        self._done: dict[tuple[str, Scope], Config | None] = {}
        self._bindings: list[tuple[Config, Scope, dict[str, Binding]]] = []
        """Of every config that was built: its gin scope, and what decides its fields."""
        self._active: list[tuple[str, Scope]] = []

    def component(self, name: str, scope: Scope, place: Place) -> Config | None:
        """The config of a registered component in a gin scope, referred to at `place`; None: problems."""
        while scope and "/".join(scope) not in self._scopes:
            scope = scope[:-1]  # nothing is bound in it, so it makes no difference
        key = (name, scope)
        if key in self._active:
            circle = [other for other, _ in self._active[self._active.index(key) :]]
            message = f"{name} contains itself: {' -> '.join([*circle, name])}"
            self.problems.append(Problem.at(place, message, f"give the inner one a scope: @inner/{name}()"))
            return None
        if key not in self._done:
            self._active.append(key)
            self._done[key] = self._component(name, scope, place)
            self._active.pop()
        return self._done[key]

    def winner(self, name: str, field: str, scope: Scope) -> Binding | None:
        """The binding that decides a field in a gin scope: the one in the most specific scope."""
        scopes = self.fields.get(name, {})
        prefixes = ("/".join(scope[:depth]) for depth in range(len(scope), -1, -1))
        return next((scopes[p][field] for p in prefixes if field in scopes.get(p, {})), None)

    def origins(self, config: Config, field: str) -> list[Origin]:
        """Where the value of a field comes from: one for each gin scope in which an equal config was built; none for a
        default."""
        deciding = [(scope, bound[field]) for made, scope, bound in self._bindings if made == config and field in bound]
        return [self._origin(scope, binding) for scope, binding in deciding]

    def _origin(self, scope: Scope, binding: Binding) -> Origin:
        through = {binding.label: binding}
        waiting = [binding]
        while waiting:
            for name in macros_in(waiting.pop(0).value):
                if name not in through:
                    through[name] = self.macros[name]
                    waiting.append(self.macros[name])
        scopes = self.fields[binding.name]
        prefixes = ["/".join(scope[:depth]) for depth in range(len(scope), -1, -1)]
        wider = [scopes.get(prefix, {}).get(binding.field) for prefix in prefixes[prefixes.index(binding.scope) + 1 :]]
        order = [(item, False) for item in through.values()] + [(item, True) for item in wider if item]
        lost: dict[Place, Binding] = {}
        for item, itself in order:
            for other in [*([item] * itself), *reversed(self.replaced.get(item.label, []))]:
                lost.setdefault(other.place, other)
        for item in through.values():  # its file may be included twice
            lost.pop(item.place, None)
        return Origin(tuple(through.values()), tuple(lost.values()))

    def bound(self, name: str, field: str) -> Any:
        """What is bound to one field of a component, without the others; None: nothing, or problems."""
        binding = self.winner(name, field, ())
        value = None if binding is None else self._bound(registry.get(name).Config, field, binding, ())
        return None if value is _BAD else value

    def _bound(self, config_type: type[Config], field: str, binding: Binding, scope: Scope) -> Any:
        """The value of a field's binding, or `_BAD`."""
        self.used.add(binding)
        slot = _Slot(binding, binding, config_type.model_fields[field], file=config_type.input_file(field))
        return self._value(binding.value, scope, slot)

    def _component(self, name: str, scope: Scope, place: Place) -> Config | None:
        config_type = registry.get(name).Config
        bound: dict[str, Binding] = {}
        values: dict[str, Any] = {}
        bad: set[str] = set()
        for field in config_type.model_fields:
            binding = self.winner(name, field, scope)
            if binding is None:
                if (name, field) in self._names.excused:
                    bad.add(field)
                continue
            bound[field] = binding
            value = self._bound(config_type, field, binding, scope)
            if value is _BAD:
                bad.add(field)
            else:
                values[field] = value
        try:
            config = config_type(**values)
        except pydantic.ValidationError as error:
            self._explain(error, config_type, values, bound, bad, place)
            return None
        set_scope(config, _own_scope(scope, bound.values(), values.values()))
        self._bindings.append((config, scope, bound))
        return None if bad else config

    def _value(self, raw: Any, scope: Scope, slot: _Slot) -> Any:
        """What a parsed value means, or `_BAD`."""
        if isinstance(raw, (list, tuple)):
            items = [self._value(item, scope, slot) for item in raw]
            return _BAD if any(item is _BAD for item in items) else tuple(items)
        if isinstance(raw, Reference):
            return self._reference(raw, scope, slot)
        if isinstance(raw, Macro):
            return self._macro(raw, slot)
        if isinstance(raw, dict) and slot.accepted:  # pydantic would make a component of it
            names = candidates(slot.accepted)
            hint = f"write @{names[0]}(), and its settings as `{names[0]}.field = value`" if len(names) == 1 else ""
            self._report(slot.source, f"{slot.target.label} must be {slot.words}; got {cut(literal(raw))}", hint)
            return self._lost(slot)
        return self._file(raw, slot.file, slot) if slot.file and isinstance(raw, str) else raw

    def _file(self, raw: str, mark: InputFile, slot: _Slot) -> Any:
        """The path of the file that a text of the run names, unless it is another kind of name."""
        component = registry.get(slot.target.name)
        if raw in mark.names(component):
            return raw
        try:
            return self._finder(component, mark, raw, self._folders.get(slot.source.place.file, ()))
        except UserError as error:
            close = closest(raw, mark.names(component))
            hint = "\n  ".join(filter(None, (f"did you mean {close[0]!r}?" if close else "", mark.remedy())))
            self._report(slot.source, f"{slot.target.label} = {cut(repr(raw))}: {cut(str(error), 5 * LONGEST)}", hint)
            return _BAD

    def _reference(self, raw: Reference, scope: Scope, slot: _Slot) -> Any:
        if raw.name not in registry.names():
            self._names.unknown.setdefault(raw.name, []).append(slot.source.place)
            self._names.expected[raw.name] = candidates(slot.accepted)
            return self._lost(slot)
        cls = registry.get(raw.name)
        if not slot.accepted:
            self._report(slot.source, f"{slot.target.label} must be {slot.words}; got {raw}")
            return self._lost(slot, raw.name)
        if not issubclass(cls.Config, slot.accepted):
            takes = component_words(slot.accepted)
            self._report(slot.source, f"{slot.target.label} takes {takes}; {raw.name} is {a_kind(cls.kind)}")
            return self._lost(slot, raw.name)
        if not raw.called:
            self._report(slot.source, f"{raw} needs brackets", f"did you mean {raw}()?")
        self.referred.setdefault(raw.name, []).append(str(raw))
        config = self.component(raw.name, raw.scopes or scope, slot.source.place)
        return _BAD if config is None or not raw.called else config

    def _macro(self, raw: Macro, slot: _Slot) -> Any:
        source = slot.source
        if raw.name == REQUIRED:
            hint = f'bind it here, in a file that includes this one, or with --set "{source.label} = ..."'
            self._missing(source, f"{source.label} must be given: it is %{REQUIRED}", hint)
            return self._lost(slot)
        if raw.name in slot.macros:
            circle = slot.macros[slot.macros.index(raw.name) :]
            turn = circle.index(min(circle))  # told alike wherever the circle is entered
            circle = (*circle[turn:], *circle[: turn + 1])
            message = f"the macro {circle[0]} refers to itself: {' -> '.join(circle)}"
            self._report(self.macros[circle[0]], message, "give it a value")
            return self._lost(slot)
        self._unfolded += 1
        if len(slot.macros) > limits.NESTED or self._unfolded > limits.MACROS:
            message = f"{slot.target.label} goes through more macros than the {limits.NESTED} of one value"
            if len(slot.macros) <= limits.NESTED:
                message = f"more than {limits.MACROS:,} values go through macros, one counted as often as it is used"
            self._report(slot.target, message, "write the value out")
            return self._lost(slot)
        binding = self.macros.get(raw.name)
        if binding is None:
            close = closest(raw.name, [*self.macros, REQUIRED])
            self.meant.update(close)
            hint = f"did you mean %{close[0]}?" if close else f"define it: `{raw.name} = value`"
            self._missing(source, f"no macro is named {raw.name}", hint)
            return self._lost(slot)
        self.used.add(binding)
        scope = tuple(raw.name.split("/"))  # gin evaluates a macro in the scope of its name
        slot = replace(slot, source=binding, macros=(*slot.macros, raw.name))
        return self._value(binding.value, scope, slot)

    def _report(self, binding: Binding, message: str, hint: str = "") -> None:
        self.problems.append(Problem.at(binding.place, message, hint))

    def _missing(self, binding: Binding, message: str, hint: str) -> None:
        if self._complete:  # else it may stand in what could not be read
            self._report(binding, message, hint)

    def _lost(self, slot: _Slot, *more: str) -> Any:
        """A component stands here that cannot be told: whatever it might use does not count as unused."""
        self._excuse([*candidates(slot.accepted), *more])
        return _BAD

    def _excuse(self, components: Sequence[str]) -> None:
        waiting: list[Reference | Macro] = [Reference((), name, True) for name in components]
        seen: set[str] = set()
        while waiting:
            item = waiting.pop()
            if str(item) in seen:
                continue
            seen.add(str(item))
            if isinstance(item, Macro):
                bindings = [self.macros[item.name]] if item.name in self.macros else []
            else:
                bindings = [b for fields in self.fields.get(item.name, {}).values() for b in fields.values()]
            for binding in bindings:
                self.used.add(binding)
                waiting += [*references_in(binding.value), *map(Macro, macros_in(binding.value))]

    def _explain(
        self,
        error: pydantic.ValidationError,
        config_type: type[Config],
        values: dict[str, Any],
        bound: dict[str, Binding],
        bad: set[str],
        place: Place,
    ) -> None:
        """One problem for each field that pydantic refuses, and for each rule across fields."""
        name = config_type.component.__name__
        for field, items in by_field(error).items():
            if field in bad or (not field and (bad or not self._complete)):
                continue
            if own := own_words(name, field, items):
                for mistake in own:
                    binding = bound.get(mistake.field)
                    where = binding.place if binding else place
                    self.problems.append(Problem.at(where, mistake.message, mistake.hint))
            elif field in values:
                self._refused(config_type, field, values, bound[field])
            else:
                self._unbound(name, field, config_type.model_fields[field], place)

    def _unbound(self, name: str, field: str, info: FieldInfo, place: Place) -> None:
        """A field that must be bound and is not."""
        words = type_words(info.annotation, info.metadata)
        self._excuse(candidates(component_types(info.annotation)))
        if not info.is_required():
            shown = literal(info.get_default(call_default_factory=True))
            message = f"{name}.{field} must be {words}; its default is {shown}"
            self.problems.append(Problem.at(place, message, f"bind {name}.{field}"))
        elif self._complete:
            doc = f" {summary(info)}" if info.description else ""
            hint = self._remedy(f"{name}.{field}") or f"add `{name}.{field} = ...`:{doc} Takes {words}."
            self.problems.append(Problem.at(place, f"{name} needs {field}", hint))

    def _refused(self, config_type: type[Config], field: str, values: dict[str, Any], binding: Binding) -> None:
        """A value of the wrong type or outside the limits."""
        source = binding
        while isinstance(source.value, Macro):
            source = self.macros[source.value.name]
        via = f" ({source.label} at {source.place})" if source is not binding else ""
        message, hint = refusal(config_type, field, values, binding.label)
        self._report(binding, message + via, hint)
        self._excuse(candidates(component_types(config_type.model_fields[field].annotation)))


def _own_scope(scope: Scope, bound: Iterable[Binding], values: Iterable[Any]) -> str:
    """The part of a gin scope that decides a component: of it, or of a component in it, something is bound there."""
    items = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    deciding = {binding.scope for binding in bound} | {scope_of(item) for item in items if isinstance(item, Config)}
    prefixes = ("/".join(scope[:depth]) for depth in range(len(scope), 0, -1))
    return next((prefix for prefix in prefixes if prefix in deciding), "")
