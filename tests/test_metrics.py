"""What a worker shows about itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from telltale import metrics
from telltale.errors import SettingsError

pytestmark = pytest.mark.unit
README = Path(__file__).parents[1] / "README.md"


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split(" ")[1]), answer


async def test_readiness_follows_the_worker_and_health_does_not() -> None:
    ready = False
    async with await metrics.serve(0, lambda: ready) as server:
        port = metrics.port_of(server)
        assert (await get(port, "/readyz"))[0] == 503
        assert (await get(port, "/healthz"))[0] == 200
        ready = True
        assert (await get(port, "/readyz"))[0] == 200
        assert (await get(port, "/elsewhere"))[0] == 404


async def test_metrics_show_what_was_counted() -> None:
    metrics.READINGS.labels("json", "stored").inc(3)
    async with await metrics.serve(0, lambda: True) as server:
        _, text = await get(metrics.port_of(server), "/metrics")
    assert re.search(r'telltale_readings_total\{outcome="stored",protocol="json"\} \d', text)
    assert "telltale_build_info" in text


async def test_a_taken_port_is_named() -> None:
    async with await metrics.serve(0, lambda: True) as server:
        with pytest.raises(SettingsError, match="TELLTALE_METRICS_PORT"):
            await metrics.serve(metrics.port_of(server), lambda: True)


def test_no_metric_names_a_vehicle() -> None:
    labels = {label for metric in ours() for label in metric._labelnames}
    assert not labels & {"vin", "vehicle", "vehicle_id", "public_id"}


def test_readme_lists_the_metrics_that_exist_and_no_others() -> None:
    listed = set(re.findall(r"^\| `(telltale_\w+)` \|", README.read_text(), re.MULTILINE))
    assert listed == {shown_name(metric) for metric in ours()}


def ours() -> list[metrics.Counter]:
    return [m for m in REGISTRY._collector_to_names if getattr(m, "_name", "").startswith("telltale_")]


def shown_name(metric: metrics.Counter) -> str:
    return metric._name + ("_total" if metric._type == "counter" else "")
