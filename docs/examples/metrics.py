"""Stream metrics for Prometheus, across all gunicorn workers."""

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

CLIENTS = Gauge("sse_clients", "Open streams", multiprocess_mode="livesum")
GONE = Counter("sse_clients_gone", "Streams that have ended", ["reason"])
REFUSED = Counter("sse_clients_refused", "Refused clients", ["reason"])
BYTES = Counter("sse_bytes", "Bytes sent by streams that have ended")
PUBLISHED = Counter("sse_messages_published", "Published messages")
DELIVERIES = Counter("sse_deliveries", "Messages delivered, counted once per client")
LAG = Histogram("sse_lag_seconds", "Time from a message's arrival to its last client")
LOST = Counter("sse_redis_lost", "Redis outages")
RECONNECTS = Counter("sse_redis_reconnects", "Redis outages that have ended")


@signals.client_connected.connect
def count_client(sender: Flask, **extra: Any) -> None:
    """Count a stream that has started."""
    CLIENTS.inc()


@signals.client_gone.connect
def count_gone(sender: Flask, *, reason: str, bytes_sent: int, **extra: Any) -> None:
    """Count a stream that has ended; the reason is ``overflow`` if the client was too slow."""
    CLIENTS.dec()
    GONE.labels(reason).inc()
    BYTES.inc(bytes_sent)


@signals.client_refused.connect
def count_refused(sender: Flask, *, reason: str, **extra: Any) -> None:
    """Count a client that was told to reconnect later."""
    REFUSED.labels(reason).inc()


@signals.message_published.connect
def count_published(sender: Flask, **extra: Any) -> None:
    """Count a published message."""
    PUBLISHED.inc()


@signals.messages_delivered.connect
def count_delivered(
    sender: Flask, *, messages: int, listeners: int, duration: float, replayed: bool, **extra: Any
) -> None:
    """Count the messages written to clients, and measure how long it took."""
    DELIVERIES.inc(messages * listeners)
    if not replayed:
        LAG.observe(duration)


@signals.redis_lost.connect
def count_lost(sender: Flask, **extra: Any) -> None:
    """Count a Redis outage."""
    LOST.inc()


@signals.redis_regained.connect
def count_regained(sender: Flask, **extra: Any) -> None:
    """Count the end of a Redis outage."""
    RECONNECTS.inc()


app = Flask(__name__)
app.config["REDIS_URL"] = "redis://localhost"
app.register_blueprint(sse, url_prefix="/stream")


@app.get("/metrics")
def metrics() -> Response:
    """Serve the metrics of all workers. Restrict access to this URL, for example in your proxy."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@app.get("/hello")
def hello() -> str:
    """Tell everybody."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"
