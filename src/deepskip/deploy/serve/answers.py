"""What the server answers, as its OpenAPI description has it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Every answer's shape: its fields are described by their docstrings, and `class` is a word of Python's."""

    model_config = ConfigDict(use_attribute_docstrings=True, populate_by_name=True)


class Probable(Answer):
    """A class and how probable it is."""

    name: str = Field(alias="class")
    probability: float
    """0 to 1."""


class Prediction(Answer):
    """What the network says of one picture."""

    name: str = Field(alias="class")
    """The most probable class."""
    probability: float
    """Its probability, 0 to 1."""
    top: list[Probable]
    """The most probable classes, most probable first."""


class Predictions(Answer):
    """A prediction for each picture, in the order in which they were sent."""

    predictions: list[Prediction]


class Compared(Answer):
    """A class, how probable it is without the blocks that were cut, and how probable with all of them."""

    name: str = Field(alias="class")
    probability: float
    intact: float


class Block(Answer):
    """What a block does to this picture."""

    block: str
    branch_rms: float | None
    """Root mean square of what its branch adds; null where it is cut."""
    shortcut_rms: float | None
    """Root mean square of what its shortcut brings; null where it is cut and nothing goes past it."""


class Look(Answer):
    """One picture seen from inside the network, without the blocks that were cut."""

    name: str = Field(alias="class")
    """The most probable class without the blocks that were cut."""
    probability: float
    top: list[Compared]
    """The most probable classes without these blocks, and those that were with all of them."""
    cut: list[str]
    at: str
    """Where Grad-CAM looks: a block, or the part of the head that makes the last feature map."""
    explained: str
    """The class that Grad-CAM explains."""
    map: list[list[float | None]]
    """Grad-CAM, a list for each line from the top; at most 56 of them. Never negative."""
    blocks: list[Block]
    seen: str
    """The picture as the network sees it, cut and resized: a PNG in a data: address."""


class Place(Answer):
    """A block and its place in the network."""

    block: str
    stage: str
    index: int
    """From 1."""
    shortcut: str
    """`identity`, `pad`, `projection`, or `none` in a plain net."""
    can_be_cut: bool
    shape: list[int]
    """Channels, height and width of what it gives."""


class About(Answer):
    """The model that is served."""

    name: str
    layers: int
    params: int
    input: list[int]
    """Channels, height and width of the network's input."""
    residual: bool
    """Whether its blocks have shortcuts."""
    last: str
    """Where Grad-CAM looks by default: the last block, or the part of the head that makes the last map."""
    classes: list[str]
    """Names, in the order of the logits."""
    blocks: list[Place]


class Alive(Answer):
    """The server is there."""

    status: str


class Health(Alive):
    """The server is there, and this is what it serves."""

    model: str
    way: str
    """How the network is run."""
    waiting: int
    """Pictures that were let in and are not answered yet."""
    version: str


class Refusal(Answer):
    """Why there is no answer: where, what was found there, what is allowed."""

    detail: str
