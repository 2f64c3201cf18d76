"""Metrics of streams for Prometheus, over all workers of gunicorn."""

from typing import Any

from flask import Flask, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from flask_sse import signals, sse

CLIENTS = Gauge("sse_clients", "Streams that are open", multiprocess_mode="livesum")
GONE = Counter("sse_clients_gone", "Streams that have ended", ["reason"])
REFUSED = Counter("sse_clients_refused", "Clients that got no stream", ["reason"])
BYTES = Counter("sse_bytes", "Bytes of streams that have ended")
PUBLISHED = Counter("sse_messages_published", "Messages that were published")
DELIVERIES = Counter("sse_deliveries", "Messages times clients")
LAG = Histogram("sse_lag_seconds", "Time from a message's arrival to its last client")
LOST = Counter("sse_redis_lost", "Outages of Redis")
RECONNECTS = Counter("sse_redis_reconnects", "Outages of Redis that are over")


@signals.client_connected.connect
def count_client(sender: Flask, **extra: Any) -> None:
    """Count a stream that begins."""
    CLIENTS.inc()


@signals.client_gone.connect
def count_gone(sender: Flask, *, reason: str, bytes_sent: int, **extra: Any) -> None:
    """Count a stream that ends; a client that was too slow has the reason ``overflow``."""
    CLIENTS.dec()
    GONE.labels(reason).inc()
    BYTES.inc(bytes_sent)


@signals.client_refused.connect
def count_refused(sender: Flask, *, reason: str, **extra: Any) -> None:
    """Count a client that was told to come back later."""
    REFUSED.labels(reason).inc()


@signals.message_published.connect
def count_published(sender: Flask, **extra: Any) -> None:
    """Count a message."""
    PUBLISHED.inc()


@signals.messages_delivered.connect
def count_delivered(
    sender: Flask, *, messages: int, listeners: int, duration: float, replayed: bool, **extra: Any
) -> None:
    """Count what has been written to clients, and how long it took."""
    DELIVERIES.inc(messages * listeners)
    if not replayed:
        LAG.observe(duration)


@signals.redis_lost.connect
def count_lost(sender: Flask, **extra: Any) -> None:
    """Count an outage."""
    LOST.inc()


@signals.redis_regained.connect
def count_regained(sender: Flask, **extra: Any) -> None:
    """Count its end."""
    RECONNECTS.inc()


app = Flask(__name__)
app.config["REDIS_URL"] = "redis://localhost"
app.register_blueprint(sse, url_prefix="/stream")


@app.get("/metrics")
def metrics() -> Response:
    """Give Prometheus the figures of all workers; let nobody else have them."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@app.get("/hello")
def hello() -> str:
    """Tell everybody."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"
