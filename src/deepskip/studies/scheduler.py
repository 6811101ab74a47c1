"""Reach a Dask scheduler, or say in one line why not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from deepskip.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

SAME = ("deepskip", "torch")  # packages that have to be of one version everywhere


def reach(address: str, limit: float) -> Client:
    """Return a client of the scheduler at `address`, which has workers and our versions.

    The scheduler has `limit` seconds to answer, and as many again to have a worker. TLS is as Dask's own
    configuration says. Raises InputError when nothing answers, no worker is there, or a worker has another
    version of deepskip or torch.
    """
    try:
        from distributed import Client
        from distributed.versions import VersionMismatchWarning
    except ImportError as error:
        allowed = 'the package "distributed"; pip install "deepskip[cluster]"'
        raise InputError("--dask", "no Dask here", allowed) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # what matters is compared below
            client = Client(address, timeout=limit, set_as_default=False, name="deepskip")
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        got = f"{address!r}, where no Dask scheduler answers ({first_line(error)})"
        allowed = "the address that `dask scheduler` prints"
        raise InputError("--dask", got, allowed, "tcp://127.0.0.1:8786") from error
    try:
        client.wait_for_workers(1, timeout=limit)
        compare(client.get_versions(packages=list(SAME)))
    except TimeoutError as error:
        client.close()
        allowed = f"one worker or more: `dask worker {address}` on each machine"
        raise InputError("--dask", f"{address}, a scheduler without workers", allowed) from error
    except BaseException:
        client.close()
        raise
    return client


def first_line(error: BaseException) -> str:
    """Return what `error` says, in one short line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def compare(versions: dict[str, Any]) -> None:
    """Raise InputError when Dask's table of versions holds another deepskip or torch than here."""
    here = versions["client"]["packages"]
    workers = {f"worker {worker}": found for worker, found in sorted(versions["workers"].items())}
    for where, there in {"scheduler": versions["scheduler"], **workers}.items():
        for package in SAME[:1] if where == "scheduler" else SAME:  # it trains nothing
            found = there["packages"].get(package)
            if found != here[package]:
                got = f"{package} {found}" if found else f"no {package}"
                raise InputError(where, got, f"{here[package]}, as here")
