"""Settings that encoders share which learn together with an agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rrl.encoders.settings.base import Encoder
from rrl.envs.base import FrameRequest
from rrl.registry import Mistake, Parts, Positive, Width, mistake

Side = Annotated[int, Field(gt=0, le=1_024)]
"""Of a square picture in pixels. What is larger takes 100 times the memory of the published sizes, 84 to 108."""


class PixelEncoder(Encoder):
    """Base of encoders that learn with an agent."""

    implemented_in = "rrl.encoders.pixel"
    trainable = True

    class Config(Encoder.Config):
        """Settings shared by encoders that learn."""

        stack: Annotated[int, Field(gt=0, le=100)] = 3
        """Frames given at once (RAD, CURL, SAC+AE: 3; FERM: 1)."""
        render: Side = 100
        """Side of the rendered and stored frames, in pixels (RAD's crop, CURL, FERM: 100; SAC+AE: 84). Where it isn't
        set, augmentation 'translate' renders frames as large as `canvas` (RAD: 108)."""
        augmentation: Literal["crop", "translate", "none"] = "crop"
        """What a training view is: a random window of side `crop`, the frame's `centre` at a random place of a black
        `canvas`, or the frame as it is. Acting and evaluation take the centre. Published RAD: crop for
        walker, translate for the other tasks; its public code's default and CURL: crop; SAC+AE: none."""
        crop: Side = 84
        """Side of the window in pixels (RAD, CURL: 84); used by augmentation 'crop' alone."""
        centre: Side = 100
        """Side of the part of a frame that is placed on the canvas, in pixels (RAD: the centre 100 of 108); used by
        augmentation 'translate' alone. Where `render` is set and this isn't, the whole frame: what runs from before
        there was this setting did."""
        canvas: Side = 108
        """Side of the canvas in pixels (RAD: 108); used by augmentation 'translate' alone."""
        layers: Annotated[int, Field(gt=0, le=100)] = 4
        """3x3 convolutions: one of stride 2, then stride 1 (RAD, CURL, SAC+AE: 4)."""
        filters: Annotated[int, Field(gt=0, le=1_024)] = 32
        """Channels of every convolution (RAD, CURL, SAC+AE: 32)."""
        features: Width = 50
        """Length of the code that a head makes (RAD, CURL, SAC+AE: 50)."""
        own_learning_rate: Positive = 1e-3
        """Adam's step size of the encoder's own loss, for the encoder and for the loss's own parameters
        (CURL, SAC+AE: 1e-3); without effect in PixelCNN, which has no such loss."""

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """An encoder that learns can't be quantised."""
            yield from super().misfit(run)
            if run.precision == "int8":
                yield Mistake(
                    "precision",
                    f"{self.component.__name__} learns, which int8 can't",
                    "set `Experiment.precision = 'auto'`: bf16 where the processor computes in it, else fp32",
                )

        @model_validator(mode="before")
        @classmethod
        def _translated_frames(cls, given: Any) -> Any:
            """The sides of `augmentation = 'translate'` that aren't given: RAD's, or those of a run from before
            `centre`, whose record states `render`."""
            fields = cls.model_fields
            if not isinstance(given, dict) or given.get("augmentation", fields["augmentation"].default) != "translate":
                return given
            if "render" not in given:
                return {**given, "render": given.get("canvas", fields["canvas"].default)}
            return {"centre": given["render"], **given}

        @model_validator(mode="after")
        def _sides_fit(self) -> PixelEncoder.Config:
            name = self.component.__name__
            if self.augmentation == "crop" and self.crop >= self.render:
                raise mistake(
                    "crop",
                    f"{name}.crop is {self.crop}, but the frames to be cut have {self.render} pixels",
                    f"choose {name}.crop < {name}.render, or {name}.augmentation = 'none'",
                )
            if self.augmentation == "translate" and self.canvas <= self.centre:
                raise mistake(
                    "canvas",
                    f"{name}.canvas is {self.canvas}, but what is to be placed on it has {self.centre} pixels",
                    f"choose {name}.centre < {name}.canvas, such as 100 and 108, or {name}.augmentation = 'none'",
                )
            if self.augmentation == "translate" and self.render < self.centre:
                raise mistake(
                    "centre",
                    f"{name}.centre is {self.centre}, but the frames to be cut have {self.render} pixels",
                    f"choose {name}.centre <= {name}.render",
                )
            least = 4 * self.layers - 1
            if self.side < least:
                raise mistake(
                    {"crop": "crop", "translate": "canvas", "none": "render"}[self.augmentation],
                    f"views of {self.side} pixels are too small for {self.layers} convolutions of {name}",
                    f"views need {least} pixels or more, or take fewer {name}.layers",
                )
            return self

        @property
        def side(self) -> int:
            """Side of the views in pixels: what the network sees."""
            return {"crop": self.crop, "translate": self.canvas, "none": self.render}[self.augmentation]

        @property
        def map_side(self) -> int:
            """Side of the last convolution's maps: 35 for views of 84 pixels, 47 for 108."""
            return (self.side - 3) // 2 + 1 - 2 * (self.layers - 1)

        def frames(self) -> FrameRequest:
            """Whole pictures of side `render`, `stack` at once."""
            return FrameRequest(self.render, self.render, self.stack)
