"""Who is compared: the encoders that a probe names, and its controls."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from rrl.config import ginfile
from rrl.demos.sets import robot_alone, with_objects
from rrl.encoders.base import Encoder
from rrl.envs.base import EnvFactory
from rrl.evaluators.blind import blind_encoder
from rrl.probes.settings import Probe
from rrl.registry import UserError, build
from rrl.run import fits
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve

Role = Literal["encoder", "control"]
FORMAT = 1
"""Of pieces: raised when what they mean changes."""


@dataclass
class Entrant:
    """An encoder in an environment, as a run would use it."""

    label: str
    """Unique in the probe."""
    role: Role
    env: EnvFactory.Config
    encoder: Encoder.Config
    run: Experiment | None = None
    """None: it can't be had here."""
    reason: str = ""
    """Why it can't, or what went wrong on the way, with the remedy."""
    notes: list[str] = field(default_factory=list)
    """What readers must know of it."""
    facts: dict[str, str] = field(default_factory=dict)
    """What is known of the encoder: checksum of the weights, ..."""

    @property
    def fine(self) -> bool:
        """Nothing went wrong with it so far."""
        return self.run is not None and not self.reason

    @property
    def experiment(self) -> Experiment:
        """Its run; only where it is `fine`."""
        assert self.run is not None
        return self.run

    @property
    def sees(self) -> bool:
        """Does it get pictures?"""
        return self.encoder.frames() is not None

    @property
    def id(self) -> str:
        """Equal for equal settings and weights, whatever it is called beside others."""
        decides = [*(ginfile.flatten(part) for part in (self.encoder, self.env)), self.facts]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def key(self) -> dict[str, Any]:
        """What decides its features and its clones' episodes, whatever the machine."""
        run = self.experiment
        config = run.config
        return {
            "format": FORMAT,
            "rrl": version("rrl"),
            "encoder": {"name": type(run.encoder).__name__, **ginfile.flatten(config.encoder)},
            "env": {"name": type(run.env).__name__, **ginfile.flatten(config.env)},
            "demos": ginfile.flatten(config.demos) if config.demos else {},
            "identity": run.identity,
            "versions": run.versions,
            "precision": config.precision,
            "backend": config.backend,
            "device": config.device,
            "batches": f"{config.num_envs}/{config.groups}",
        }


def entrants(probe: Probe.Config) -> list[Entrant]:
    """All of them, each built as far as that can be done here: what is missing is its `reason`."""
    found = list(_unbuilt(probe))
    for entrant, label in zip(found, _told_apart(found), strict=True):
        entrant.label = label
        try:
            config = resolve(Experiment.Config(**dict(probe.run_of(entrant.encoder, entrant.env))))
            run = Experiment(config)
            fits.check(run)
            entrant.run, entrant.facts = run, run.encoder_facts
            entrant.notes = [mismatch.text for mismatch in run.encoder.mismatches(run.env)]
            if any(mismatch.serious for mismatch in run.encoder.mismatches(run.env)):
                entrant.label += " (OF ANOTHER TASK)"
        except UserError as error:
            entrant.reason = str(error)
    return found


def _unbuilt(probe: Probe.Config) -> Iterator[Entrant]:
    for encoder in dict.fromkeys(probe.encoders):
        yield Entrant(encoder.label(), "encoder", probe.env, encoder)
    if not probe.controls:
        return
    blind = blind_encoder()
    oracle = type(blind)()
    for env, encoder in ((robot_alone(probe.env), blind), (with_objects(probe.env), oracle)):
        made: EnvFactory = build(env)
        told = encoder.blind_on_purpose == made.blind_state
        if made.has_state and told and (env, encoder) not in [(probe.env, other) for other in probe.encoders]:
            yield Entrant(encoder.label(), "control", env, encoder)


def _told_apart(found: list[Entrant]) -> list[str]:
    """A label for each; where encoders have the same, with the settings in which they differ."""
    count = Counter(entrant.label for entrant in found)
    labels = []
    for entrant in found:
        alike = [ginfile.flatten(other.encoder) for other in found if other.label == entrant.label]
        own = ginfile.flatten(entrant.encoder)
        differing = [name for name in own if len({other.get(name) for other in alike}) > 1]
        detail = ", ".join(f"{name} {own[name]}" for name in differing)
        labels.append(f"{entrant.label} ({detail})" if count[entrant.label] > 1 and detail else entrant.label)
    return labels
