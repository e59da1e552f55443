"""The application: routes, errors, headers. Everything it needs is handed in; nothing is read at import."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import telltale
from telltale.api import alerts, health, pages, problems, stream, vehicles
from telltale.config import Settings
from telltale.store.pool import Pool, open_pool

MAX_BODY_BYTES: Final = 64 * 1024
POOL_SIZE: Final = 8
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class GuardHeaders:
    """Put the security headers on every response; what a person or key may see is never cached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(event: Message) -> None:
            if event["type"] == "http.response.start":
                headers = MutableHeaders(scope=event)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(event)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)


class BodyLimit:
    """Refuse a request body that is too long, where it is read, so that the answer is a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def counted() -> Message:
            nonlocal read
            event = await receive()
            read += len(event.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise problems.ProblemError(413, "too-large", f"A body may have {MAX_BODY_BYTES} bytes.")
            return event

        await self._app(scope, counted, send)


def _lifespan(settings: Settings) -> Callable[[FastAPI], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await open_pool(
            settings.database, role_name="api", timeout_s=settings.database_timeout_s, max_size=POOL_SIZE
        )
        async with _running(app, settings, pool):
            yield

    return lifespan


@contextlib.asynccontextmanager
async def _running(app: FastAPI, settings: Settings, pool: Pool) -> AsyncIterator[None]:
    app.state.pool = pool
    reader = asyncio.create_task(app.state.hub.run())
    try:
        yield
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await pool.close()


def create_app(settings: Settings) -> FastAPI:
    """Return the API and its pages; the database is opened when the server starts it."""
    app = FastAPI(
        title="telltale",
        version=telltale.__version__,
        summary="Alerts about vehicles, with their evidence, for dealers and quality engineers.",
        lifespan=_lifespan(settings),
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.hub = stream.Hub(settings.database, timeout_s=settings.database_timeout_s)
    problems.install(app, pages.problem_page)
    for module in (alerts, vehicles, stream, health):
        app.include_router(module.router)
    pages.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(GuardHeaders)
    return app


def openapi_json(app: FastAPI) -> bytes:
    """Return the contract as committed in schemas/openapi.json."""
    return orjson.dumps(app.openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
