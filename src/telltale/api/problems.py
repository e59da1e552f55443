"""Every error as RFC 9457 `application/problem+json`, with a `type` that clients may rely on."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from telltale.store.pool import is_waitable

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:telltale:problem:"
Pages = Callable[[Request, int], Response | None]
_log = structlog.get_logger("telltale.api")


class Problem(BaseModel):
    """What went wrong, as RFC 9457 says it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="stable name of the kind of problem", examples=[_URN + "not-found"])
    title: str
    status: int
    detail: str | None = None
    instance: str | None = Field(None, description="path of the request")


class ProblemError(HTTPException):
    """Raise to answer with a problem; `members` are extra members of its JSON."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.slug, self.members = slug, members


def not_found() -> ProblemError:
    """Return the one answer for what does not exist and for what lies outside the caller's scope."""
    return ProblemError(404, "not-found", "There is nothing here that your key can see.")


def respond(
    request: Request, status: int, slug: str, detail: str | None, headers: Any = None, **members: Any
) -> Response:
    """Return the problem as a response: JSON, or a page where a person is looking at one."""
    page: Pages = request.app.state.problem_page
    shown = page(request, status)
    if shown is not None:
        return shown
    problem = Problem(
        type=_URN + slug,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        **members,
    )
    body = orjson.dumps(problem.model_dump(exclude_none=True))
    return Response(body, status, headers=headers, media_type=MEDIA_TYPE)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    slug = error.slug if isinstance(error, ProblemError) else _slug(error.status_code)
    members = error.members if isinstance(error, ProblemError) else {}
    return respond(request, error.status_code, slug, str(error.detail), error.headers, **members)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [{"where": list(found["loc"]), "what": found["msg"]} for found in error.errors()]
    return respond(
        request, 422, "invalid-request", "The request does not fit the contract.", None, errors=errors
    )


async def _on_crash(request: Request, error: Exception) -> Response:
    if is_waitable(error):
        _log.warning("database unreachable", path=request.url.path, error=repr(error))
        detail = "The database does not answer right now; try again."
        return respond(request, 503, "database-unreachable", detail, {"Retry-After": "2"})
    _log.error("request failed", path=request.url.path, method=request.method, exc_info=error)
    return respond(
        request, 500, "internal-error", "telltale failed to answer; the cause is in its log.", None
    )


def _slug(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "-")


def install(app: FastAPI, page: Pages) -> None:
    """Answer every error of this application with a problem; `page` may answer for those of pages."""
    app.state.problem_page = page
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_crash)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "model": Problem, "content": content}
        for status in statuses
    }
