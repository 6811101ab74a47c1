"""What a request may ask for in its query: names, values, and what is said of any other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError

from deepskip.deploy.serve.limits import RefusedError
from deepskip.deploy.serve.refusals import refusal
from deepskip.errors import choices, nearest

TOP, MOST = 5, 1000
LONGEST = 200  # characters of a name
ALLOWED = {
    "top": f"a whole number from 1 to {MOST}",
    "at": f"a block's name, of at most {LONGEST} characters",
    "class": f"a class's name, of at most {LONGEST} characters",
}
"""What each parameter takes that cannot take just any text."""

Top = Annotated[int, Query(ge=1, le=MOST, description="How many of the most probable classes to list")]
Cut = Annotated[list[str] | None, Query(description="A block to cut, as `s2.b3`; may be given several times")]
At = Annotated[str | None, Query(max_length=LONGEST, description="The block where Grad-CAM looks")]
Explained = Annotated[
    str | None, Query(alias="class", max_length=LONGEST, description="The class that Grad-CAM explains")
]


def only(*names: str) -> Callable[[Request], Awaitable[None]]:
    """Return a check that a query has only these names: a misspelt one would do nothing, in silence."""

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                near = nearest(name[:LONGEST], names)
                raise RefusedError(422, "query", repr(name[:LONGEST]), choices(names), near)

    return check


async def invalid(request: Request, error: Exception) -> Response:
    """Say which parameter has a value that it cannot have."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, got = str(first["loc"][1]), repr(first.get("input"))[:80]
    return refusal(RefusedError(422, where, got, ALLOWED.get(where, "what /openapi.json describes")))
