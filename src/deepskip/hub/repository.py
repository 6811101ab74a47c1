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
from deepskip.files import read_json, write_json, write_text
from deepskip.hub.card import MARK, card
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

    A README.md that somebody wrote is kept. Raises InputError for a folder with another's `config.json`, a run
    folder among them, and WorkError when the disk refuses.
    """
    _check_place(folder)
    store.save(folder / store.FILE, net, header)
    write_json(folder / CONFIG, config_of(header))
    if may_replace(folder / CARD):
        write_text(folder / CARD, card(header, repository, licence))


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder, new or of this model's own")
    if (folder / CONFIG).exists() and not is_ours(read_json(folder / CONFIG)):
        raise InputError(folder, f"a folder with another {CONFIG}, as a run folder has", "a new folder")


def may_replace(path: Path) -> bool:
    """Return whether no card is at `path`, or one that was written by this program and by nobody since."""
    try:
        return MARK in path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


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
    is kept. The token is huggingface_hub's own unless given. Raises InputError for a wrong name and without
    huggingface_hub, WorkError, naming the repository, for what the Hub refuses and without a network.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError("push_to_hub", repr(repository), "owner/name")
    api = _api(token)
    with explained(repository), tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        named = str(api.create_repo(repository, private=private, exist_ok=True).repo_id)
        if revision is not None:
            api.create_branch(named, branch=revision, exist_ok=True)
        if api.file_exists(named, CARD, revision=revision):
            with tempfile.TemporaryDirectory() as beside:
                held = Path(api.hf_hub_download(named, CARD, revision=revision, local_dir=beside))
                (folder / CARD).write_bytes(held.read_bytes())
        write(folder, net, header, repository=named, licence=licence)
        api.upload_folder(
            repo_id=named,
            folder_path=folder,
            revision=revision,
            commit_message=message or f"{header.spec.name}, by deepskip {__version__}",
        )
        return f"hf://{named}" + (f"@{revision}" if revision else "")


def _api(token: str | None) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        got = "no package huggingface_hub"
        raise InputError("push_to_hub", got, 'pip install "deepskip[hub]"') from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name=LIBRARY)


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
