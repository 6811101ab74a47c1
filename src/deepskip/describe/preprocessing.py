"""How a picture becomes a network's input, as a value that travels inside the model file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deepskip.describe.value import Value
from deepskip.errors import InputError

Colour = Literal["L", "RGB"]
Positive = Annotated[int, Field(ge=1, le=16384)]


class Preprocessing(Value):
    """Decode → upright → `colour` → resize → centre crop → `(x / 255 - mean) / std`.

    The picture's shorter side is resized to `resize` pixels (aspect kept), then the centre `size` × `size` is
    cut out. With `resize == size` and a square picture nothing is lost.
    """

    size: Positive
    """Height and width of the network's input, in pixels."""
    resize: Positive
    """Length of the picture's shorter side before the crop, in pixels; at least `size`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are resampled, always with antialiasing."""
    colour: Colour = "RGB"
    """Channel order: "L" is one grey channel, "RGB" is red, green, blue."""
    mean: tuple[float, ...]
    """Mean of each channel over the training images, on the scale 0 to 1."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Standard deviation of each channel over the training images, on the scale 0 to 1."""

    @property
    def channels(self) -> int:
        """Number of input channels: 1 or 3."""
        return len(self.colour)

    @model_validator(mode="after")
    def _agree(self) -> Preprocessing:
        if self.resize < self.size:
            raise InputError("resize", self.resize, f"at least size = {self.size}", self.size)
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise InputError(name, f"{len(getattr(self, name))} numbers", f"{self.channels}, one a channel")
        return self
