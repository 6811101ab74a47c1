"""What the server counts, in Prometheus's words; each server has its own counters."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from deepskip.deploy.serve.limits import Gate

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts requests, batches, and what waits."""

    def __init__(self, gate: Gate, about: dict[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("deepskip_model", "What is served, and how it is run", registry=registry).info(about)
        self._requests = Counter(
            "deepskip_requests", "Requests, by path and status", ("path", "status"), registry=registry
        )
        self._seconds = Histogram(
            "deepskip_request_seconds",
            "From a request's head to its answer",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "deepskip_batch_pictures", "Pictures computed at once", buckets=PICTURES, registry=registry
        )
        self._batch_seconds = Histogram(
            "deepskip_batch_seconds", "Time to compute a batch", buckets=SECONDS, registry=registry
        )
        waiting = Gauge("deepskip_waiting_pictures", "Let in and not answered yet", registry=registry)
        waiting.set_function(lambda: gate.pictures)
        held = Gauge("deepskip_waiting_bytes", "Bodies of requests not answered yet", registry=registry)
        held.set_function(lambda: gate.bytes)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request to one of the server's paths."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, pictures: int, seconds: float) -> None:
        """Count a batch that was computed."""
        self._batch.observe(pictures)
        self._batch_seconds.observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """Return all counters as Prometheus reads them, and their Content-Type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
