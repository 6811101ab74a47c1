"""A request's body to the pictures in it: counted as it comes, kept in memory, never on a disk.

Starlette's own reading of forms would write a large part to a temporary file. Names of files in a request are
not even kept.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header

from deepskip.deploy.serve.limits import Limits, RefusedError, Visit
from deepskip.errors import choices

FIELD = b"file"
OTHERS = 16  # parts of other names that are passed over in a form, and no more


async def received(
    chunks: AsyncIterator[bytes], kind: str, announced: int | None, limits: Limits, visit: Visit
) -> list[bytes]:
    """Return the pictures of a body: the `file` parts of a multipart form, or the body itself.

    `kind` is the request's Content-Type and `announced` its Content-Length. Raises RefusedError: 400 for what
    is no body or no form, 413 for too many bytes or pictures, 429 where there is no room for it now.
    """
    if announced is not None:
        _check(announced, limits)  # but nothing is held for it: who announces much may never send it
    named, options = parse_options_header(kind)
    parts = _Whole() if named != b"multipart/form-data" else _Form(options.get(b"boundary", b""), limits)
    count = 0
    async for chunk in chunks:
        count += len(chunk)
        _check(count, limits)
        visit.hold(bytes=count)
        parts.write(chunk)
    files = parts.end()
    visit.hold(pictures=len(files))
    return files


def _check(count: int, limits: Limits) -> None:
    if count > limits.body:
        raise RefusedError(413, "body", f"{count} bytes or more", f"at most {limits.body}")


class _Whole:
    """The body itself is the picture."""

    def __init__(self) -> None:
        self._content = io.BytesIO()  # gives its bytes away without copying them

    def write(self, chunk: bytes) -> None:
        self._content.write(chunk)

    def end(self) -> list[bytes]:
        if not self._content.tell():
            raise RefusedError(400, "body", "nothing", "a picture, or a multipart form with one in `file`")
        return [self._content.getvalue()]


class _Form:
    """A multipart form, of which the parts named `file` are kept."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        if not boundary:
            raise RefusedError(
                400, "Content-Type", "a form without boundary", "multipart/form-data; boundary=…"
            )
        self._limits = limits
        self._files: list[io.BytesIO] = []
        self._others: list[bytes] = []
        self._into: io.BytesIO | None = None
        self._name = self._field = self._value = b""  # no longer than the parser lets headers be
        self._whole = False
        calls: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        self._parser: Any = _understood(lambda: MultipartParser(boundary, calls))  # type: ignore[arg-type]

    def write(self, chunk: bytes) -> None:
        _understood(lambda: self._parser.write(chunk))

    def end(self) -> list[bytes]:
        if not self._whole:
            raise RefusedError(400, "body", "a form that is cut short", "a whole multipart form")
        if not self._files:
            others = [name.decode("utf-8", "replace") for name in self._others]
            got = f"no part named file (but {choices(others)})" if others else "no part"
            raise RefusedError(400, "body", got, "one or more parts named file")
        return [file.getvalue() for file in self._files]

    def _begin(self) -> None:
        self._into, self._name = None, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"")
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        if self._name == FIELD:
            if len(self._files) == self._limits.pictures:
                raise RefusedError(413, "body", "more pictures", f"at most {self._limits.pictures} a request")
            self._into = io.BytesIO()
            self._files.append(self._into)
            return
        if len(self._others) == OTHERS:
            raise RefusedError(413, "body", "more parts of other names", f"at most {OTHERS}")
        self._others.append(self._name[:40])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._into is not None:
            self._into.write(data[start:end])

    def _end(self) -> None:
        self._whole = True


def _understood(read: Callable[[], Any]) -> Any:
    """Return what `read` does; what the parser complains of is the sender's mistake."""
    try:
        return read()
    except ValueError as error:  # all of the parser's own errors are such
        raise RefusedError(
            400, "body", "a form that cannot be read", "multipart/form-data as `curl -F file=@PICTURE` sends it"
        ) from error
