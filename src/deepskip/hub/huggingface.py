"""Networks of the Hugging Face Hub: our own, timm's and transformers' repositories, over plain HTTPS.

A repository's `model.safetensors` is checked against the SHA-256 that the Hub states for it (the header
`X-Linked-Etag`). What was downloaded once is used from then on, without asking the network again. `HF_TOKEN`
opens private repositories.
"""

from __future__ import annotations

import math
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.describe.value import explain
from deepskip.errors import InputError, WorkError
from deepskip.files import read_json, write_json
from deepskip.hub.architectures import ResNetConfig, architecture
from deepskip.hub.download import ORIGIN, TIMEOUT, fetch, hub_endpoint, repository_folder
from deepskip.hub.importing import Imported, import_tensors
from deepskip.hub.known import IMAGENET_MEAN, IMAGENET_STD
from deepskip.hub.repository import is_ours
from deepskip.weights import store
from deepskip.weights.adapters.translate import names
from deepskip.weights.foreign import head_classes, read_tensors

Interpolation = Literal["bilinear", "bicubic"]
T = TypeVar("T", bound=BaseModel)
Triple = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class _Pretrained(BaseModel):
    input_size: tuple[int, int, int] = (3, 224, 224)
    interpolation: Interpolation = "bicubic"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 0.875
    crop_mode: Literal["center"] = "center"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


class _Timm(BaseModel):
    architecture: str
    label_names: list[str] | None = None
    label_descriptions: dict[str, str] = Field(default_factory=dict)
    pretrained_cfg: _Pretrained = _Pretrained()


class _Processor(BaseModel):
    size: int | dict[str, int] = 224
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 0.875
    resample: Literal[2, 3] = 3
    image_mean: Triple = IMAGENET_MEAN
    image_std: Triple = IMAGENET_STD


def load(name: str) -> Imported:
    """Return the network of the repository `owner/name`, or `owner/name@revision`.

    What `Model.push_to_hub` wrote is what it was, header and all: its file is the model file. Raises InputError
    when the repository holds no net we have, WorkError, naming the URL, without a network.
    """
    if not _REPOSITORY.fullmatch(name) or {".", ".."} & {*re.split("[/@]", name)}:  # no step out of a folder
        raise InputError("hf://", repr(name), "owner/name, or owner/name@revision")
    folder = _fetched(name)
    if is_ours(read_json(folder / "config.json")):
        net, header = store.load(folder / store.FILE)
        return Imported(net, header, [])
    spec, source, classes, prepared = _described(folder, name)
    path = folder / "model.safetensors"
    tensors = read_tensors(path)
    rows = head_classes(tensors, names(spec, source))
    if classes is not None and rows != len(classes):
        # A file of the user's may get a new head on demand; a repository that contradicts itself is refused.
        allowed = (
            f"{rows}, as the head in model.safetensors has" if rows else "none: model.safetensors has no head"
        )
        raise InputError(f"hf://{name}: config.json", f"{len(classes)} labels", allowed)
    return import_tensors(
        tensors, spec, source, path=path, classes=classes, prepared=prepared, origin=f"hf://{name}"
    )


def _fetched(name: str) -> Path:
    """Return the folder of the repository's files, downloaded unless they are there."""
    repository, _, revision = name.partition("@")
    base, folder = hub_endpoint(), repository_folder(name)
    url, origin = f"{base}/{repository}/resolve/{revision or 'main'}", folder / ORIGIN
    asking = _headers()
    if not origin.is_file():
        headers = _head(f"{url}/model.safetensors")
        sha256 = headers.get("X-Linked-Etag", "").strip('"')
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise WorkError(
                f"{url}/model.safetensors", "no SHA-256 in the answer", "an answer with X-Linked-Etag"
            )
        # All files from one commit, even when the repository changes while we read it.
        url = f"{base}/{repository}/resolve/{headers.get('X-Repo-Commit', revision or 'main')}"
        fetch(f"{url}/config.json", folder / "config.json", headers=asking)
        if not (_is_timm(folder) or is_ours(read_json(folder / "config.json"))):
            fetch(f"{url}/preprocessor_config.json", folder / "preprocessor_config.json", headers=asking)
        fetch(f"{url}/model.safetensors", folder / "model.safetensors", sha256, headers=asking)
        write_json(origin, {"url": url, "sha256": sha256})
    kept: Any = read_json(origin)
    fetch(f"{kept['url']}/model.safetensors", folder / "model.safetensors", kept["sha256"], headers=asking)
    return folder


def _headers() -> dict[str, str]:
    """Return what says who asks; nothing without a token."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _is_timm(folder: Path) -> bool:
    config = read_json(folder / "config.json")
    return isinstance(config, dict) and "architecture" in config


def _described(folder: Path, name: str) -> tuple[Spec, str, tuple[str, ...] | None, Preprocessing]:
    config = read_json(folder / "config.json")
    if _is_timm(folder):
        return _timm(_checked(_Timm, config, name), name)
    if isinstance(config, dict) and config.get("model_type") == "resnet":
        processor = read_json(folder / "preprocessor_config.json")
        return _transformers(_checked(ResNetConfig, config, name), _checked(_Processor, processor, name), name)
    kind = config.get("model_type") if isinstance(config, dict) else None
    raise InputError(
        f"hf://{name}",
        f"a model of type {kind!r}",
        "deepskip's own, timm's ResNets, or transformers' of type 'resnet'",
    )


def _timm(config: _Timm, name: str) -> tuple[Spec, str, tuple[str, ...] | None, Preprocessing]:
    spec, given = architecture(config.architecture), config.pretrained_cfg
    if spec is None:
        where, known = (
            f"hf://{name}: architecture",
            "resnet*, resnet*d, seresnet*, resnext*, wide_resnet*, resnetv2_*",
        )
        raise InputError(where, repr(config.architecture), f"timm's {known} of the zoo's depths")
    channels, size, _ = given.input_size
    prepared = Preprocessing(
        size=size,
        resize=math.floor(size / given.crop_pct),  # as timm.data.transforms_factory rounds it
        interpolation=given.interpolation,
        colour="L" if channels == 1 else "RGB",
        mean=given.mean,
        std=given.std,
    )
    labels = config.label_names
    classes = tuple(config.label_descriptions.get(label, label) for label in labels) if labels else None
    return spec.replace(input=(channels, size, size)), "timm", classes, prepared


def _transformers(
    config: ResNetConfig, processor: _Processor, name: str
) -> tuple[Spec, str, tuple[str, ...] | None, Preprocessing]:
    given = processor.size
    size = given if isinstance(given, int) else given.get("shortest_edge", given.get("height", 224))
    prepared = Preprocessing(
        size=size,
        # ConvNextImageProcessor: below 384 pixels a margin is cut off, from there on none.
        resize=int(size / processor.crop_pct) if size < 384 else size,
        interpolation="bicubic" if processor.resample == 3 else "bilinear",
        colour="L" if config.num_channels == 1 else "RGB",
        mean=processor.image_mean,
        std=processor.image_std,
    )
    base = "resnet_" + re.sub(r"[^a-z0-9]+", "_", name.partition("@")[0].lower())
    labels = tuple(config.id2label[i] for i in sorted(config.id2label))
    return config.spec(base[:64]), "transformers", labels or None, prepared


def _checked(model: type[T], value: object, name: str) -> T:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = explain(model, error)
        raise InputError(
            f"hf://{name}: {str(first.where).partition('.')[2]}", first.got, first.allowed
        ) from error


class _Linked(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but for the one to the storage, whose answer holds the file's SHA-256."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if headers.get("X-Linked-Etag"):
            return None
        other = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if other and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            # A token is for the server that it was given for, and not to be read on the way there.
            other.remove_header("Authorization")
        return other


def _head(url: str) -> Message:
    """Return the headers of the Hub's answer about a file. Raises WorkError."""
    request = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity", **_headers()})
    try:
        with urllib.request.build_opener(_Linked()).open(request, timeout=TIMEOUT) as answer:
            headers: Message = answer.headers
            return headers
    except urllib.error.HTTPError as error:
        with error:
            if 300 <= error.code < 400:
                return error.headers
            allowed = "a repository with a model.safetensors (a private one needs HF_TOKEN)"
            raise WorkError(url, f"status {error.code}", allowed) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise WorkError(url, f"no answer ({reason})", "a network connection") from error
