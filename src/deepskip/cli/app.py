"""The `deepskip` command: its sub-commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import get_args

import cyclopts
from cyclopts import App, CycloptsError, Parameter

from deepskip._version import __version__
from deepskip.cli import show
from deepskip.cli.bench import bench
from deepskip.cli.depth import depth
from deepskip.cli.doctor import doctor
from deepskip.cli.export import export
from deepskip.cli.identity import identity
from deepskip.cli.inspect import inspect
from deepskip.cli.nets import describe, nets
from deepskip.cli.serve import serve
from deepskip.cli.spectrum import spectrum
from deepskip.cli.train import train
from deepskip.cli.use import evaluate, predict
from deepskip.cli.weights import import_
from deepskip.errors import DeepskipError, choices, nearest, printable

INTERRUPTED = 130

app = App(
    name="deepskip",
    help="Deep residual networks on PyTorch: build, train, measure and use them, beside their plain twins.",
    version=__version__,
    help_format="markdown",
    default_parameter=Parameter(negative="", show_choices=True),
    suppress_keyboard_interrupt=False,
)
study = App(
    name="study",
    help="Train a grid of nets and show what it says: rows, figures, a verdict, a report. Re-running resumes.",
    sort_key=9,
)
app.command(nets, sort_key=1)
app.command(describe, sort_key=2)
app.command(doctor, sort_key=3)
app.command(train, sort_key=4)
app.command(evaluate, sort_key=5)
app.command(predict, sort_key=6)
app.command(inspect, sort_key=7)
app.command(import_, name="import", sort_key=8)
app.command(bench, sort_key=9)
app.command(export, sort_key=10)
app.command(serve, sort_key=11)
app.command(study)
study.command(depth)
study.command(spectrum)
study.command(identity)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    show.typed[:] = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end politely: as by Ctrl-C
        app(
            show.typed,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(_explain(error), 2)
    except DeepskipError as error:
        return _fail(_as_typed(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, prefix="")
    except BrokenPipeError:
        # The reader of our output left, as `head` does. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        return _fail(f"{error.filename or 'system'}: got {reason}; allowed: a path that can be used", 1)
    except Exception as error:
        if os.environ.get("DEEPSKIP_DEBUG"):
            raise
        text = " ".join(str(error).split())[:300]
        known = "memory" in text.lower() and ("alloc" in text.lower() or isinstance(error, MemoryError))
        allowed = "a smaller --batch or net" if known else "nothing of the kind; DEEPSKIP_DEBUG=1 shows where"
        where = "memory" if known else "deepskip itself"
        return _fail(f"{where}: got {type(error).__name__}: {text}; allowed: {allowed}", 1)
    return 0


def _as_typed(error: DeepskipError) -> str:
    """Return an error's line; it stands at the option that was typed where it is about that one's value.

    Below the command line a value has its name in Python: `images`, `Recipe.epochs`.
    """
    name = str(error.where).removeprefix("Recipe.").partition(".")[0]
    option = f"--{name.replace('_', '-')}"
    words = [word.removeprefix("--set=") for word in show.typed]
    if any(word.partition("=")[0] == option for word in words):
        where = option
    elif any(word.startswith(f"{name}=") for word in words):
        where = f"--set {name}"
    else:
        return str(error)
    return printable(_line(where, str(error.got), str(error.allowed), error.nearest))


def _prepare_streams() -> None:
    """Let a terminal that lacks a sign show a question mark, and a closed stream swallow what it is sent."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the program lives
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _fail(line: str, code: int, *, prefix: str = "error: ") -> int:
    sys.stderr.write(f"{prefix}{line}\n")
    return code


def _explain(error: CycloptsError) -> str:
    """Return the parser's complaint in this project's own form."""
    if isinstance(error.__cause__, DeepskipError):  # of a converter of ours, whose words it would lose
        return str(error.__cause__)
    command = " ".join(error.command_chain or ())
    where = f"deepskip {command}".strip()
    if isinstance(error, cyclopts.UnknownOptionError):
        word = (error.token.keyword or error.token.value).split("=")[0]
        options = sorted(
            {name for arg in error.argument_collection for name in arg.names if name.startswith("--")}
        )
        return _line(where, f"unknown option {word!r}", choices(options, most=40), nearest(word, options))
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        group = study if command.startswith("study") else app
        names = [name for name in group if not name.startswith("-")]
        return _line(where, f"unknown command {word!r}", choices(names), nearest(word, names))
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        return _line(where, f"{error.unused_tokens[0]!r} too many", f"what `{where} --help` shows", None)
    if isinstance(error, cyclopts.CoercionError) and error.token is not None:
        option = error.token.keyword or (error.argument.name if error.argument else "argument")
        values = [value for value in get_args(error.target_type) if isinstance(value, str)]
        if values:
            return _line(option, repr(error.token.value), choices(values), nearest(error.token.value, values))
        words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        kind = str(getattr(error.target_type, "__name__", error.target_type)).removesuffix(" | None")
        return _line(option, repr(error.token.value), words.get(kind, kind), None)
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        return _line(f"{where} {error.argument.name}", "nothing", f"a value (see `{where} --help`)", None)
    text = " ".join(str(error).split()).rstrip(".")
    return _line(where, text[:1].lower() + text[1:], f"what `{where} --help` shows", None)


def _line(where: str, got: str, allowed: str, near: object) -> str:
    return f"{where}: got {got}; allowed: {allowed}" + ("" if near is None else f"; nearest: {near}")
