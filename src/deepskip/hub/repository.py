"""A model as a repository of the Hugging Face Hub: a folder, and the same folder on the Hub."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepskip._version import __version__
from deepskip.errors import InputError, WorkError
from deepskip.extras import need
from deepskip.files import read_json, write_json, write_text
from deepskip.hub.card import card, is_as_written, licence_of
from deepskip.hub.download import forget
from deepskip.nets.network import Network
from deepskip.weights import store

LIBRARY = "deepskip"
CONFIG, CARD = "config.json", "README.md"
_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")


def is_ours(config: object) -> bool:
    """Return whether the content of a `config.json` is what `write` writes."""
    return isinstance(config, Mapping) and config.get("library_name") == LIBRARY


def config_of(header: store.Header) -> dict[str, Any]:
    """Return a `config.json`, for who looks for one: we read the header of the model file alone."""
    spec, prepared = header.spec, header.preprocessing
    return {
        "library_name": LIBRARY,
        "model_type": LIBRARY,
        "architectures": [spec.name],
        "deepskip_version": __version__,
        "num_labels": len(header.classes),
        "id2label": {str(i): name for i, name in enumerate(header.classes)},
        "label2id": {name: i for i, name in enumerate(header.classes)},
        "num_channels": prepared.channels,
        "image_size": prepared.size,
        "preprocessing": prepared.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
    }


def write(
    folder: Path,
    net: Network,
    header: store.Header,
    *,
    repository: str | None = None,
    licence: str | None = None,
) -> None:
    """Write `model.safetensors`, `config.json` and a card into `folder`; each is whole or not there.

    A README.md that somebody wrote, or wrote in, is kept; the licence in one that is renewed stays unless
    another is given. Raises InputError for a folder with another's `config.json`, a run folder among them, and
    WorkError when the disk refuses.
    """
    _check_place(folder)
    held = _card_in(folder / CARD)
    config = config_of(header)  # both made before anything is written
    text = card(header, repository, licence or licence_of(held or ""))
    store.save(folder / store.FILE, net, header)
    write_json(folder / CONFIG, config)
    if held is None or is_as_written(held):
        write_text(folder / CARD, text)


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder, new or of this model's own")
    _check_config(folder / CONFIG, folder, "a folder", "a run folder")


def _check_config(path: Path, where: object, place: str, example: str) -> None:
    """Refuse a `config.json` at `path` that we did not write. Raises InputError at `where`."""
    try:
        ours = not path.exists() or is_ours(read_json(path))
    except InputError as error:
        raise InputError(where, f"{place} with a {CONFIG} that is no JSON", f"a new {place[2:]}") from error
    if not ours:
        raise InputError(where, f"{place} with another {CONFIG}, as {example} has", f"a new {place[2:]}")


def _card_in(path: Path) -> str | None:
    """Return the card at `path`, None where there is none, nothing for somebody's that is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return ""


def push(
    net: Network,
    header: store.Header,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    token: str | None = None,
) -> str:
    """Make the repository `owner/name`, or `name` of the token's owner, hold the model; return its address.

    The repository is made unless it is there, `revision` (a branch) too; a README.md in it that somebody wrote
    is kept. What was downloaded of it before is downloaded anew when it is next loaded. The token is
    huggingface_hub's own unless given. Raises InputError for a wrong name, for a repository with another's
    `config.json` and without huggingface_hub, WorkError, naming the repository, for what the Hub refuses and
    without a network.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError("push_to_hub", repr(repository), "owner/name")
    api = _api(token)
    with explained(repository), tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        named = str(api.create_repo(repository, private=private, exist_ok=True).repo_id)
        if revision is not None:
            api.create_branch(named, branch=revision, exist_ok=True)
        for file in (CONFIG, CARD):
            if api.file_exists(named, file, revision=revision):
                with tempfile.TemporaryDirectory() as beside:
                    held = Path(api.hf_hub_download(named, file, revision=revision, local_dir=beside))
                    (folder / file).write_bytes(held.read_bytes())
        _check_config(folder / CONFIG, f"hf://{named}", "a repository", "another library's")
        write(folder, net, header, repository=named, licence=licence)
        api.upload_folder(
            repo_id=named,
            folder_path=folder,
            revision=revision,
            commit_message=message or f"{header.spec.name}, by deepskip {__version__}",
        )
        forget(named, revision)
        return f"hf://{named}" + (f"@{revision}" if revision else "")


def _api(token: str | None) -> Any:
    hub = need("huggingface_hub", "push_to_hub")
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name=LIBRARY)


@contextlib.contextmanager
def explained(repository: str) -> Iterator[None]:
    """Turn whatever huggingface_hub and its HTTP client raise into one line that names the repository."""
    try:
        yield
    except (InputError, WorkError):
        raise
    except Exception as error:  # the client's own errors have no common root, and change with its versions
        deepest: BaseException = error
        while deepest.__cause__ is not None:
            deepest = deepest.__cause__
        status = getattr(getattr(deepest, "response", None), "status_code", None)
        said = next(iter(str(deepest).strip().splitlines()), "")
        got = f"status {status} ({said})" if status else f"{type(deepest).__name__} ({said})"
        allowed = "a network connection, and a token that may write there (hf auth login, or HF_TOKEN)"
        raise WorkError(f"hf://{repository}", got, allowed) from error
