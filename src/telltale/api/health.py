"""/healthz (the process), /readyz (can it answer), /metrics (Prometheus)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from telltale.api.problems import ProblemError, responses
from telltale.store.ready import is_migrated

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_class=Response)
async def healthz() -> Response:
    """Tell that the process runs."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, responses=responses(503))
async def readyz(request: Request) -> Response:
    """Tell whether the database answers and has this version's tables."""
    try:
        migrated = await is_migrated(request.app.state.pool)
    except Exception as error:
        raise ProblemError(
            503, "database-unreachable", "The database does not answer.", headers={"Retry-After": "2"}
        ) from error
    if not migrated:
        raise ProblemError(503, "not-migrated", "The database lacks tables of this version: telltale migrate")
    return Response("ready\n", media_type="text/plain")


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Return this process's metrics."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
