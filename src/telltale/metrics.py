"""Every Prometheus metric of every worker, and the small server that shows them.

Base units, no vehicle in any label. README lists them; a test compares the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

import telltale
from telltale.errors import SettingsError

LATENCY_BUCKETS: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600)
REQUEST_TIMEOUT_S: Final = 5.0

READINGS: Final = Counter(
    "telltale_readings", "frames and readings taken in, by what became of them", ["protocol", "outcome"]
)
REJECTS: Final = Counter(
    "telltale_rejects", "frames and readings rejected, by reason", ["protocol", "reason"]
)
MARKERS: Final = Counter(
    "telltale_markers", "values the vehicle marked as invalid or abnormal", ["signal", "kind"]
)
BATCHES: Final = Counter("telltale_batches", "ingest transactions, by how they ended", ["topic", "result"])
LAG_MESSAGES: Final = Gauge("telltale_lag_messages", "Kafka records not yet stored", ["topic"])
LAG_SECONDS: Final = Gauge("telltale_lag_seconds", "age of the newest stored Kafka record", ["topic"])
HALTED: Final = Gauge(
    "telltale_halted_partitions", "partitions waiting for an operator's word to go on", ["topic"]
)
EVENT_TO_STORED: Final = Histogram(
    "telltale_event_to_stored_seconds",
    "from the record's Kafka timestamp to the commit that stores it",
    ["topic"],
    buckets=LATENCY_BUCKETS,
)
EVENT_TO_ALERT: Final = Histogram(
    "telltale_event_to_alert_seconds",
    "from the record's Kafka timestamp to the commit of the alert it raises",
    buckets=LATENCY_BUCKETS,
)
ALERTS: Final = Counter("telltale_alerts", "alerts raised", ["detector", "severity"])
STREAM_CLIENTS: Final = Gauge("telltale_stream_clients", "open event streams")
FOLDED: Final = Counter("telltale_folded_buckets", "vehicle hours folded into summaries")
SCORED: Final = Counter("telltale_scored_vehicles", "vehicles scored, by result", ["model", "result"])
MODEL_INFO: Final = Gauge("telltale_model_info", "1 for each model loaded", ["model", "version"])
BUILD_INFO: Final = Gauge("telltale_build_info", "1; the version as label", ["version"])


async def serve(port: int, ready: Callable[[], bool], host: str = "127.0.0.1") -> asyncio.Server:
    """Serve /metrics, /healthz and /readyz; port 0 takes a free one. Close the returned server to end.

    `ready` is asked on each /readyz: 200 when true, else 503. Raises SettingsError when the port is taken.
    """
    BUILD_INFO.labels(telltale.__version__).set(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_respond(request, ready))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise SettingsError(
            f"metrics: cannot listen on {host}:{port} ({error}): set TELLTALE_METRICS_PORT to a free one"
        ) from error


def port_of(server: asyncio.Server) -> int:
    """Return the port a server listens on."""
    port: int = server.sockets[0].getsockname()[1]
    return port


def _respond(request: bytes, ready: Callable[[], bool]) -> bytes:
    method, _, rest = request.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return _response(405, "method not allowed\n")
    if path == "/metrics":
        return _response(200, generate_latest().decode(), CONTENT_TYPE_LATEST)
    if path == "/healthz":
        return _response(200, "ok\n")
    if path == "/readyz":
        return _response(200, "ready\n") if ready() else _response(503, "not ready\n")
    return _response(404, "not here: /metrics /healthz /readyz\n")


def _response(status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> bytes:
    reason = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}[status]
    body = text.encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
