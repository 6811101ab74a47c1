"""`deepskip serve`: a trained model behind HTTP, with a page to look into it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from deepskip.cli.show import Output, Whole
from deepskip.errors import InputError, WorkError

if TYPE_CHECKING:
    from deepskip.deploy.choosing import Choice
    from deepskip.model import Model

TOKEN = "DEEPSKIP_TOKEN"
PORTS = {"http": 80, "https": 443}  # which browsers leave out of a site's name
WORK = 2000  # pictures that a server surely sees: how long it looks for a faster way depends on it


def serve(
    model: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    batch: Whole = 16,
    queue: Whole = 64,
    seconds: float = 30.0,
    megabytes: Whole = 32,
    megapixels: Whole = 50,
    pictures: Whole = 16,
    token_file: Path | None = None,
    origins: str | None = None,
    api_only: bool = False,
    way: str = "auto",
    device: str = "auto",
    output: Output = Output(),
) -> None:
    """Serve a model over HTTP: predictions for programs, and a page that shows how they come about.

    `POST /predict` takes a picture, or a form with several, and answers with classes and probabilities; `GET /`
    is the page; `/health`, `/metrics` (Prometheus) and `/openapi.json` are there too. Ctrl-C or TERM ends it,
    when what was let in is answered.

    Examples:

    - `deepskip serve runs/r56`
    - `deepskip serve runs/r56 --port 8080 --batch 32 --api-only`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    host
        The address to listen at. By default only this machine can reach it; `0.0.0.0` is every address.
    port
        The port to listen at; 0 takes a free one.
    batch
        Pictures computed at once, at most.
    queue
        Pictures that are let in and not answered yet, at most; beyond that the answer is 429.
    seconds
        Time for a request, at most.
    megabytes
        Size of a request's body, at most, in MiB.
    megapixels
        Size of a picture, at most, in millions of pixels.
    pictures
        Pictures in a request, at most.
    token_file
        A file with a token that requests have to bring, all but those for `/health`, `/openapi.json` and the
        page's own files; the variable DEEPSKIP_TOKEN does the same.
    origins
        Web sites whose pages may use this server from a browser, as `https://example.org`, separated by commas;
        none by default.
    api_only
        Serve no page, and not what only the page needs.
    way
        How `/predict` runs the net: `auto`, the fastest here that gives the same answers; `fastest`, in any
        numbers; or a way that `deepskip bench` lists.
    device
        `auto`, `cpu` or `cuda`.
    """
    with _ended_early(output):
        from deepskip.extras import EXTRAS, need

        for package in EXTRAS["serve"]:
            need(package, "deepskip serve")
        from deepskip.deploy.serve import app as application
        from deepskip.deploy.serve import server
        from deepskip.deploy.serve.limits import MIB, Limits
        from deepskip.model import load
        from deepskip.training.precision import choose_device

        if batch < 1:
            raise InputError("--batch", batch, "a whole number from 1", 1)
        limits = Limits(
            body=megabytes * MIB,
            pixels=megapixels * 1_000_000,
            pictures=pictures,
            queue=queue,
            memory=max(Limits.model_fields["memory"].default, megabytes * MIB),
            seconds=seconds,
        )
        token, allowed = _token(token_file), sites(origins)
        loaded = load(model, device=choose_device(device))
        with server.listen(host, port) as listening:  # a port that is taken is no news to wait for
            choice = _choose(loaded, way, batch)
            told = Told(server.address(listening), loaded.net.spec.name, choice.way.name, os.getpid())
            private = server.is_private(listening)

            def ready() -> None:
                if token is None and not private:
                    output.warn(
                        f"whoever reaches {told.url} can use it; {TOKEN} or --token-file keeps others out"
                    )
                if output.json:
                    output.result(told._asdict())
                    sys.stdout.flush()
                else:
                    output.note(f"{told.model}, {told.way}, at {told.url} (Ctrl-C ends it)")

            try:
                app = application.create(
                    loaded,
                    choice.runner,
                    way=told.way,
                    batch=batch,
                    limits=limits,
                    token=token,
                    origins=allowed,
                    # A token keeps out what comes by another name, too, and a proxy may pass its own name on.
                    hosts=server.names(listening, host, allowed) if private and token is None else None,
                    page=not api_only,
                    ready=ready,
                    say=output.warn,
                )
                left = server.run(app, listening, seconds=seconds)
            finally:
                choice.runner.close()
        if left:
            got = f"its end, with {left} of what was let in not answered"
            raise WorkError("deepskip serve", got, "one Ctrl-C or TERM, and time for all of it")
        output.note("ended; all that was let in is answered")


@contextlib.contextmanager
def _ended_early(output: Output) -> Iterator[None]:
    """Take Ctrl-C and TERM, before there is anybody to answer, as the end that they are later."""
    try:
        yield
    except KeyboardInterrupt:
        output.note("ended before it could answer")


class Told(NamedTuple):
    """What is said once the server can answer."""

    url: str
    model: str
    way: str
    pid: int


def _choose(model: Model, wanted: str, batch: int) -> Choice:
    """Return the way to run the model, checked. Raises InputError and WorkError."""
    import numpy as np

    from deepskip.deploy.choosing import check, choose
    from deepskip.deploy.serve import queue
    from deepskip.deploy.ways import WAYS, Source

    check(wanted)
    eight = next((way.name for way in WAYS if way.numbers == "int8"), None)
    if wanted == eight:
        raise InputError(
            "--way", repr(wanted), "a way that needs no pictures to choose its ranges by", "fastest"
        )
    side, channels = model.preprocessing.size, model.preprocessing.channels
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, channels), np.uint8)
    choice = choose(Source(model), pixels, batch=batch, images=max(WORK, 2 * batch), wanted=wanted)
    queue.check(choice.runner, model.preprocessing, batch)
    return choice


def _token(file: Path | None) -> str | None:
    """Return the token that requests have to bring, None where they need none. Raises InputError.

    It is no option: other users of a machine can read a command's words. An empty one is a mistake, and must
    not mean that anybody may come.
    """
    if file is None:
        given, where, what = os.environ.get(TOKEN), TOKEN, f"the variable {TOKEN}"
        if given is None:
            return None
    else:
        where, what = "--token-file", str(file)
        try:
            given = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("--token-file", file, "a file that can be read, with a token in it") from error
    token = given.strip()
    if not token:
        raise InputError(where, f"{what}, without a token", "a token in it, or none of it")
    if not (token.isascii() and token.isprintable()):
        raise InputError(where, f"{what}, with other signs in it", "a token of printable ASCII, in one line")
    return token


def sites(text: str | None) -> tuple[str, ...]:
    """Return web sites as browsers name them: in small letters, no slash at the end. Raises InputError."""
    if text is None:
        return ()
    return tuple(_origin(one.strip()) for one in text.split(","))


def _origin(text: str) -> str:
    try:
        parts = urlsplit(text.lower())
        own = (parts.scheme, parts.hostname, parts.port)  # which raises for what is no port
    except ValueError:
        parts, own = urlsplit(""), ("", None, None)
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if own[0] not in PORTS or not own[1] or more or "*" in text:
        raise InputError("--origins", repr(text), "web sites, as https://example.org, separated by commas")
    return f"{parts.scheme}://{parts.netloc}".removesuffix(f":{PORTS[parts.scheme]}")
