"""The base of every frozen, validated value (Spec, Recipe, Preprocessing): JSON in, JSON out, clear errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from typing import Any, Self

import pydantic

from deepskip.errors import InputError, choices, nearest


class Value(pydantic.BaseModel):
    """A frozen value: compares and hashes by its fields, round-trips JSON, refuses unknown fields.

    Raises InputError, naming the field, what it got, what is allowed and the nearest valid value.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise explain(type(self), error) from error

    def replace(self, **changes: Any) -> Self:
        """Return this value with some fields changed, validated anew."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def to_json(self) -> str:
        """Return this value as JSON text; `from_json` gives it back equal."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the value that `to_json` wrote. Raises InputError when the text is not one."""
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise explain(cls, error) from error

    @classmethod
    def from_dict(cls, fields: object) -> Self:
        """Return the value whose `model_dump(mode="json")` is `fields`. Raises InputError."""
        return cls.from_json(json.dumps(fields))

    def digest(self, *, leave_out: Set[str] = frozenset()) -> str:
        """Return 64 hexadecimal digits that depend on every field not left out and on nothing else."""
        fields = self.model_dump(mode="json", exclude=set(leave_out))
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "fields and their values",
    "model": "fields and their values",
}
"""What pydantic wants, by the first word of its complaint's type; its own sentences are for programmers."""
_FAULTS = ("type", "parsing", "parsing_size", "from_float", "attributes_type")


def explain(cls: type[pydantic.BaseModel], error: pydantic.ValidationError) -> InputError:
    """Return pydantic's first complaint about a `cls` as one line in this project's own form."""
    first = error.errors(include_url=False)[0]
    where = ".".join((cls.__name__, *(str(part) for part in first["loc"])))
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        where = f"{where}.{inner.where}" if first["loc"] else str(inner.where)
        return InputError(where, inner.got, inner.allowed, inner.nearest)
    if first["type"] == "missing":
        return InputError(where, "nothing", "a value; the field has no default")
    kind, _, fault = first["type"].partition("_")
    if first["type"] == "json_invalid":
        return InputError(where, "text that is no JSON", f"the JSON of a {cls.__name__}")
    got = repr(first["input"])
    if len(got) > 80:
        got = f"{got[:77]}…"
    if first["type"] == "extra_forbidden" and first["loc"]:
        key, names = str(first["loc"][-1]), list(cls.model_fields)
        return InputError(cls.__name__, f"unknown field {key!r}", choices(names, most=40), nearest(key, names))
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        options = str(first["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return InputError(where, got, choices(options), nearest(first["input"], options))
    if kind in _KINDS and fault in _FAULTS:
        return InputError(where, got, _KINDS[kind])
    allowed = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return InputError(where, got, allowed[0].lower() + allowed[1:])
