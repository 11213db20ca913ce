"""What a text binds without effect: no component of the run reads it, or another line decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rrl import registry
from rrl.config.grammar import Binding, Problem, macros_in, references_in
from rrl.config.resolve import Layer, Layered, Names, Resolver
from rrl.config.words import literal


def unused(
    bindings: Sequence[Layered], run: Resolver, before: set[Binding], names: Names, alone: str = ""
) -> Iterator[Problem]:
    """Bindings and macros of the file that nothing uses, and overrides without effect.

    `before` is what the same run uses without overrides: they may idle it. Included files may bind more than a
    run uses. `alone`: what to do about components that aren't part of it; "": refer to them.
    """
    mentioned = _mentioned_macros(bindings) | run.meant
    used = {binding.label for binding in run.used}
    for binding, layer in bindings:
        if layer == Layer.INCLUDED or binding in names.misnamed:
            continue
        if layer == Layer.FILE and binding.label in used and binding.field:  # by a file laid over this one, at most
            continue
        if layer == Layer.OVERRIDE:
            idle = binding not in run.used
        elif binding.field:
            idle = binding not in run.used and binding not in before
        else:
            idle = binding.name not in mentioned
        if idle and binding.field:
            why, override = _why_unused(binding, run, alone), layer == Layer.OVERRIDE
            yield Problem.at(binding.place, f"nothing uses {binding.label}", why, idle=override)
        elif idle:
            in_run = [n for n in run.referred if binding.name in registry.get(n).Config.model_fields]
            forgotten = [f"{n}.{binding.name} = {literal(binding.value)}" for n in in_run]
            hint = f"refer to it as %{binding.name}, or delete the line"
            if binding.name in registry.names():
                hint = f"{binding.name} is a component: write `{binding.name}.field = value`"
            hint = f"did you mean `{forgotten[0]}`?" if forgotten else hint
            yield Problem.at(binding.place, f"nothing uses the macro {binding.name}", hint)


def replaced(given: Iterable[Binding], run: Resolver, before: set[Binding], root: str) -> Iterator[Problem]:
    """Parts that were named for what a later one, or the run's own lines, decide otherwise; or for what another root
    than a run's reads elsewhere."""
    for binding in given:
        winner = run.winner(root, binding.field, ())
        same = winner is not None and winner.value == binding.value
        if binding.name != root and not same:
            for name in [reference.name for reference in references_in(binding.value)]:
                fields = [field for field in registry.get(root).Config.model_fields if field.startswith(binding.field)]
                value = f"@{name}()" if binding.field in fields else f"(..., @{name}())"
                use = f'name it there: --set "{root}.{fields[0]} = {value}"' if fields else "leave it out"
                yield Problem.at(binding.place, f"{root} doesn't read {binding.label}", use)
        elif winner is not None and binding not in run.used | before and not same:
            message = f"this part is not used: {winner.place} decides {binding.label}"
            yield Problem.at(binding.place, message, "name this part after it, or leave it out")


def _mentioned_macros(bindings: Sequence[Layered]) -> set[str]:
    """Macros that a binding mentions, or a macro that a binding mentions, ..."""
    values: dict[str, list[Any]] = {}
    waiting: list[str] = []
    for binding, _ in bindings:
        if binding.field:
            waiting += macros_in(binding.value)
        else:
            values.setdefault(binding.name, []).append(binding.value)
    mentioned: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in mentioned:
            mentioned.add(name)
            waiting += [other for value in values.get(name, []) for other in macros_in(value)]
    return mentioned


def _why_unused(binding: Binding, run: Resolver, alone: str) -> str:
    references = run.referred.get(binding.name)
    if not references:
        replaced = [each for several in run.replaced.values() for each in several]
        lost = [each for each in replaced if any(ref.name == binding.name for ref in references_in(each.value))]
        winner = run.winner(lost[0].name, lost[0].field, ()) if lost else None
        if winner is not None and binding.place.line and winner.place.file != binding.place.file:
            return f"{winner.place} decides {lost[0].label}, not {lost[0].place}: name {binding.place.file} after it"
        kind = registry.get(binding.name).kind
        for name in run.referred:
            cls = registry.get(name)
            if cls.kind == kind and binding.field in cls.Config.model_fields:
                return f"the {kind} of this run is {name}: did you mean {name}.{binding.field}?"
        return alone or f"no {binding.name} is part of this run: refer to it as @{binding.name}(), or delete the line"
    for other in (b for bindings in run.fields[binding.name].values() for b in bindings.values()):
        inner = f"{other.scope}/".startswith(f"{binding.scope}/" if binding.scope else "")
        if inner and other.field == binding.field and other in run.used:
            return f"{other.label} ({other.place}) goes before it everywhere"
    return f"this run uses {' and '.join(dict.fromkeys(references))}"
