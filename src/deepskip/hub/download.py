"""Files from the network, each checked by SHA-256 and kept in the cache folder: whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from deepskip.data.store import data_folder
from deepskip.errors import WorkError
from deepskip.files import explained, replacing
from deepskip.hub.importing import file_sha256

TIMEOUT = 30.0
"""Seconds without an answer after which a server is taken to be away."""
ORIGIN = "origin.json"
"""In a repository's cache folder, and written last: where its files are from."""


def models_folder() -> Path:
    """Return the folder for downloaded models: `$DEEPSKIP_DATA/models`."""
    return data_folder() / "models"


def hub_endpoint() -> str:
    """Return the address of the Hugging Face Hub, or of the one that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def repository_folder(name: str) -> Path:
    """Return the cache folder of the Hub's repository `owner/name` or `owner/name@revision`.

    Its last eight digits are of the whole address: `a/b--c` and `a--b/c` are two, and so is either on two hubs.
    """
    digest = hashlib.sha256(f"{hub_endpoint()}/{name}".encode()).hexdigest()[:8]
    return models_folder() / "hf" / f"{re.sub(r'[/@]', '--', name)}--{digest}"


def forget(name: str, revision: str | None) -> None:
    """Let the Hub be asked again for what `owner/name` has on its branch `revision`, by default main."""
    for one in {name, f"{name}@main"} if revision in (None, "main") else {f"{name}@{revision}"}:
        origin = repository_folder(one) / ORIGIN
        with explained(origin):
            origin.unlink(missing_ok=True)


def fetch(url: str, path: Path, sha256: str | None = None, *, headers: Mapping[str, str] | None = None) -> Path:
    """Return `path`, downloaded from `url` unless it is there already with the right SHA-256.

    `sha256` may be its first digits; None checks nothing and always downloads. `headers` go with the request.
    Raises WorkError, naming the URL, when there is no network or the content is another; what was at `path`
    before is then untouched.
    """
    if sha256 and path.is_file() and file_sha256(path).startswith(sha256):
        return path
    with replacing(path) as beside:
        _download(url, beside, path, headers)
        found = file_sha256(beside)
        if not found.startswith(sha256 or ""):
            raise WorkError(
                url, f"a file with SHA-256 {found[:16]}…", f"SHA-256 {sha256[:16] if sha256 else ''}…"
            )
    return path


def _download(url: str, beside: Path, path: Path, headers: Mapping[str, str] | None) -> None:
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(timeout=TIMEOUT, headers=dict(headers or {}))(url, str(beside), None)
    except requests.RequestException as error:
        reason = f"no download ({type(error).__name__})"
        if error.response is not None:
            error.response.close()
            reason = f"no download (status {error.response.status_code})"
        raise WorkError(url, reason, f"a network connection, or the file at {path}") from error
