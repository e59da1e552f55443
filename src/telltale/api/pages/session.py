"""Signing in with a link, signing out, choosing a language."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from telltale.api import auth
from telltale.api.pages import words
from telltale.api.pages.render import page
from telltale.store.keys import find_caller

router = APIRouter(include_in_schema=False)
_YEAR_S = 365 * 24 * 3600


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a URL-encoded form; the first value of each counts."""
    body = (await request.body()).decode("utf-8", "replace")
    return {name: values[0] for name, values in parse_qs(body, max_num_fields=20).items()}


def inside(path: str | None) -> str:
    """Return a path of this site to go to; anything else becomes the front page."""
    fine = path and path.startswith("/") and not path.startswith(("//", "/\\", "/login"))
    return path if path and fine and path.isprintable() else "/"


@router.get("/login")
async def login(
    request: Request,
    key: Annotated[str | None, Query()] = None,
    next_path: Annotated[str | None, Query(alias="next")] = None,
) -> Response:
    """Take the key of a login link into a cookie and out of the address; without one, explain."""
    if key is None:
        return page(request, "login.html", next=inside(next_path), refused=False)
    return await _enter(request, key, next_path)


@router.post("/login")
async def login_form(request: Request) -> Response:
    """Take a key that was typed or pasted."""
    auth.refuse_foreign_form(request)
    form = await form_of(request)
    return await _enter(request, form.get("key", ""), form.get("next"))


async def _enter(request: Request, key: str, next_path: str | None) -> Response:
    if await find_caller(request.app.state.pool, key.strip()) is None:
        return page(request, "login.html", status=401, next=inside(next_path), refused=True)
    response = RedirectResponse(inside(next_path), 303)
    auth.start_session(request, response, key.strip())
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forget the key in this browser."""
    auth.refuse_foreign_form(request)
    response = RedirectResponse("/login", 303)
    auth.end_session(response)
    return response


@router.get("/language")
async def language(
    to: Annotated[words.Language, Query()], next_path: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """Remember the language somebody chose."""
    response = RedirectResponse(inside(next_path), 303)
    response.set_cookie(words.COOKIE, to, max_age=_YEAR_S, httponly=True, samesite="lax")
    return response
