"""A Dask cluster as an executor: one call a worker process at a time, a lost worker's call again elsewhere.

Dask's own `Client.get_executor()` hands every call out at once, as many to a worker as it has threads. But a
training wants the whole worker, one that waits behind another should go to a machine that gets free, and a
cancelled one should stop. So `Cluster` keeps the queue itself and gives a call to a free worker, by name: no
`--nthreads` or `--resources` of the user's has to say that a worker takes one at a time. Two studies that share
a cluster are kept apart by a lock in each worker process.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.data.dataset import Dataset
from deepskip.errors import DeepskipError, InputError, WorkError
from deepskip.files import sweep, write_text
from deepskip.studies.scheduler import first_line, reach
from deepskip.studies.worker import LOOK, choose, look, work
from deepskip.training.precision import Precision

if TYPE_CHECKING:
    from distributed import Client

LIMIT = 30.0  # seconds in which the scheduler has to answer, and then to have a worker
GONE = 120.0  # seconds without any worker, or without a scheduler, after which a study ends
LOSSES = 3  # lost workers after which a call is held to be their undoing

log = logging.getLogger(__name__)


class LostError(RuntimeError):
    """Worker after worker ended while it ran this call."""


@dataclass(eq=False)
class _Call:
    promise: futures.Future[Any]
    work: Callable[[], Any]
    losses: int = 0
    worker: str = ""
    task: Any = None  # the Dask future, while a worker has it


def connect(address: str, *, device: str = "auto") -> Cluster:
    """Return the cluster whose scheduler is at `address`, such as `tcp://10.0.0.1:8786`.

    With a CUDA `device` only workers that offer a GPU are used (`dask worker ADDRESS --resources "GPU=1"`),
    and "auto" is that where there is such a worker. Raises InputError as `reach` does.
    """
    client = reach(address, LIMIT)
    try:
        return Cluster(client, address, device)
    except BaseException:
        client.close()
        raise


class Cluster(futures.Executor):
    """The workers of a Dask cluster. Use it in a `with` block, or shut it down: it holds a connection."""

    def __init__(self, client: Client, address: str, device: str = "auto") -> None:
        """Serve calls through `client`. Raises InputError when a CUDA device is wanted and none is offered."""
        self.address, self.client = address, client
        self._waiting: deque[_Call] = deque()
        self._running: list[_Call] = []
        self._probe: Callable[[], Any] | None = None
        self._probes: dict[str, Any] = {}  # Dask futures, by worker, of those that look
        self._found: dict[str, DeepskipError | None] = {}  # what keeps a worker from this study
        self._token: Path | None = None
        self._checked = False
        self._resources: dict[str, float] | None = None
        offering = any(info["resources"].get("GPU") for info in (self._workers() or {}).values())
        if device.startswith("cuda") or (device == "auto" and offering):
            if not offering:
                got = f"{device!r}, and no worker that offers a GPU"
                raise InputError("--device", got, 'workers started with --resources "GPU=1"', "auto")
            self._resources = {"GPU": 1}
        self.device = "cuda" if device == "auto" and offering else "cpu" if device == "auto" else device
        self._last = time.monotonic()  # when a worker was last there
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    @property
    def size(self) -> int:
        """How many workers can take a call now."""
        return len(self._able(self._workers()))

    def choose(self, device: str, precision: str, size: int) -> tuple[str, Precision]:
        """Return the device and precision of cells, as a worker would choose them. Raises InputError."""
        wanted = self.device if device == "auto" else device
        workers = self._able(self._workers())
        task = self.client.submit(choose, wanted, precision, size, workers=workers, pure=False)
        chosen: tuple[str, Precision] = task.result(timeout=GONE)
        return chosen

    def check(self, folder: Path, data: Dataset) -> None:
        """Prove that every worker sees `folder` and has `data`; one that comes later works only if it does.

        Raises InputError that names the first worker that does not.
        """
        self._token = folder.absolute() / f".{uuid.uuid4().hex}.part"
        sweep(folder)  # an older token, of a study that was killed
        write_text(self._token, "")
        given = (self._token, data.source, data.preprocessing.size, data.fingerprint)
        with self._lock:
            self._probe = functools.partial(look, *given)
            self._probes, self._found = {}, {}
        while True:
            able = self._able(self._workers())
            with self._lock:
                fit = [self._is_fit(worker) for worker in able]
                found = next((answer for answer in self._found.values() if answer), None)
            if found is not None:
                raise found
            if fit and all(fit):
                self._checked = True
                return
            if self._closed.wait(LOOK):
                raise WorkError(f"cluster {self.address}", "no worker", "workers that stay")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Have `fn(*args, **kwargs)` called on the next worker that is free."""
        call = _Call(futures.Future(), functools.partial(fn, *args, **kwargs))
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(call)
        return call.promise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, when the calls are done if `wait`; its workers go on for others."""
        with self._lock:
            calls = [*self._waiting, *self._running]
        if cancel_futures or not wait:
            for call in calls:
                call.promise.cancel()
        futures.wait([call.promise for call in calls])
        self._closed.set()
        self._server.join(timeout=LIMIT)
        if self._token:
            self._token.unlink(missing_ok=True)
        self.client.close(timeout=LIMIT)

    # --- the queue ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closed.is_set():
                self._turn()
                self._closed.wait(LOOK)
            self._turn()  # what was cancelled stops on its worker
        except Exception as error:
            log.debug("the queue of %s ended", self.address, exc_info=True)
            self._fail(WorkError(f"scheduler {self.address}", first_line(error), "a scheduler that answers"))

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._closed.set()
            for call in [*self._waiting, *self._running]:
                _end(call.promise, error=error)
            self._waiting.clear()
            self._running.clear()

    def _turn(self) -> None:
        """Look once at everything: end what is done, take back what is lost, give to who is free."""
        there = self._workers()
        able = self._able(there)
        if self.client.status in ("closing", "closed") and not self._closed.is_set():
            raise ConnectionError("no answer any more")
        if able:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > GONE:
            got = f"no worker for {GONE:.0f} s"
            self._fail(WorkError(f"cluster {self.address}", got, "workers; the same command again goes on"))
        with self._lock:
            if there is not None:
                self._found = {worker: found for worker, found in self._found.items() if worker in there}
            for call in [call for call in self._waiting if call.promise.cancelled()]:
                self._waiting.remove(call)
                _end(call.promise)
            for call in list(self._running):
                self._settle(call, there)
            busy = {call.worker for call in self._running}
            free = [worker for worker in able if worker not in busy and self._is_fit(worker)]
            while free and self._waiting and not self._closed.is_set():
                call = self._waiting.popleft()
                call.worker = free.pop(0)
                call.task = self._send(call.worker, call.work, self._resources)
                self._running.append(call)

    def _workers(self) -> dict[str, Any] | None:
        """Return what the scheduler says of each worker; None while it does not answer."""
        if self.client.status != "running":
            return None
        try:  # not `scheduler_info`: its answer is also written, without workers, by the client's own clock
            return dict(self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"])
        except OSError:
            return None  # the client sees it too, and connects anew or closes

    def _able(self, there: dict[str, Any] | None) -> list[str]:
        able = {w: info for w, info in (there or {}).items() if info["status"] == "running"}
        return [w for w, info in able.items() if not self._resources or info["resources"].get("GPU")]

    def _send(self, worker: str, call: Callable[[], Any], resources: dict[str, float] | None = None) -> Any:
        from distributed.protocol.pickle import dumps

        key = f"deepskip-{uuid.uuid4().hex}"
        pickled = dumps(call)  # unread by the scheduler, which then needs no torch
        # Pinned: were another worker to take it over, it could wait there behind a cell while a third is free.
        return self.client.submit(
            work, key, pickled, key=key, workers=[worker], resources=resources, pure=False
        )

    def _settle(self, call: _Call, there: dict[str, Any] | None) -> None:
        status = call.task.status
        if call.promise.cancelled():
            call.task.cancel()
            _end(call.promise)
        elif status == "pending" and (there is None or call.worker in there):
            return
        elif status == "finished":
            self._deliver(call)
        elif status == "error" and type(call.task.exception()).__name__ != "KilledWorker":
            _end(call.promise, error=call.task.exception())
        else:
            # A scheduler that was away has forgotten its calls: that is not the call's fault.
            self._again(call, lost=status != "cancelled")
        self._running.remove(call)

    def _deliver(self, call: _Call) -> None:
        try:
            result, stopped = call.task.result(timeout=LIMIT)
        except (OSError, TimeoutError, futures.CancelledError):  # lost with the worker that had it
            return self._again(call, lost=True)
        if stopped and result is None:
            return self._again(call, lost=False)  # its worker is leaving: the state is saved
        return _end(call.promise, result)

    def _again(self, call: _Call, *, lost: bool) -> None:
        call.task.cancel()
        call.losses += lost
        if call.losses >= LOSSES:
            _end(call.promise, error=LostError(f"{LOSSES} workers lost while they ran it"))
        else:
            log.info("worker %s is lost; its call runs again elsewhere", call.worker)
            self._waiting.appendleft(call)

    def _is_fit(self, worker: str) -> bool:
        """Return whether `worker` sees the study's folder and data; one that is not known is sent to look."""
        if self._probe is None:
            return True
        if worker not in self._found and worker not in self._probes:
            self._probes[worker] = self._send(worker, self._probe)
        elif worker in self._probes and self._probes[worker].status != "pending":
            task = self._probes.pop(worker)
            if task.status == "finished":
                found = task.result(timeout=LIMIT)[0]
            else:
                found = WorkError(f"worker {worker}", f"a look that {task.status}", "one that runs deepskip")
            self._found[worker] = found
            if found is not None and self._checked:  # before that, `check` raises it
                log.warning("left out: %s", found)
        return worker in self._found and self._found[worker] is None


def _end(promise: futures.Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    if not promise.set_running_or_notify_cancel():
        return
    if error is not None:
        promise.set_exception(error)
    else:
        promise.set_result(result)
