"""Who is asking: a key in the Authorization header, or the session cookie a login link leaves behind."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from telltale.api.problems import ProblemError
from telltale.store.keys import Caller, find_caller

COOKIE: Final = "telltale_session"
_SESSION_S: Final = 30 * 24 * 3600
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_bearer = HTTPBearer(auto_error=False, description="an API key: tt_live_<id>_<secret>")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="left by a login link")


def unauthorized() -> ProblemError:
    """Return the one answer for a missing, malformed, unknown and revoked key."""
    return ProblemError(
        401,
        "unauthorized",
        "Send an API key as `Authorization: Bearer tt_live_…`, or open your login link.",
        headers={"WWW-Authenticate": 'Bearer realm="telltale"'},
    )


def token_of(request: Request) -> str | None:
    """Return the key a request carries: the header wins, a header of another kind carries none."""
    header = request.headers.get("authorization")
    if header is not None:
        kind, _, token = header.partition(" ")
        return token.strip() if kind.lower() == "bearer" else None
    return request.cookies.get(COOKIE)


async def find(request: Request) -> Caller | None:
    """Return the caller of a request, or None; the key is asked of the database every time."""
    token = token_of(request)
    return await find_caller(request.app.state.pool, token) if token else None


def refuse_foreign_form(request: Request) -> None:
    """Refuse a write that another site's page made the browser send with our cookie."""
    if request.method in _SAFE or "authorization" in request.headers:
        return
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if site not in {"same-origin", "none"} or foreign:
        raise ProblemError(403, "foreign-origin", "This write came from another site's page.")


async def require_caller(
    request: Request,
    _header: Annotated[Any, Security(_bearer)],
    _session: Annotated[Any, Security(_cookie)],
) -> Caller:
    """Return the caller, or answer 401; as a dependency it also documents how to authenticate."""
    refuse_foreign_form(request)
    caller = await find(request)
    if caller is None:
        raise unauthorized()
    return caller


async def require_editor(caller: Annotated[Caller, Depends(require_caller)]) -> Caller:
    """Return a caller who may change alerts, or answer 403."""
    if not caller.scope.may_edit:
        raise ProblemError(403, "read-only", "A key of role ops reads; it does not edit alerts.")
    return caller


SignedIn = Annotated[Caller, Depends(require_caller)]
Editor = Annotated[Caller, Depends(require_editor)]


def start_session(request: Request, response: Response, token: str) -> None:
    """Put the key into a cookie that scripts cannot read and other sites' forms cannot send."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=_SESSION_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def end_session(response: Response) -> None:
    """Forget the key."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
