"""Pages for people: server-rendered, usable without scripts, live with them."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from telltale.api.pages import assets, dealer, session
from telltale.api.pages.render import page
from telltale.api.pages.words import catalogue


def install(app: FastAPI) -> None:
    """Add the pages and their static files to an application."""
    for module in (assets, session, dealer):
        app.include_router(module.router)


def problem_page(request: Request, status: int) -> Response | None:
    """Return an error as a page, or None when no person is looking at one."""
    if request.url.path.startswith("/v1/") or "text/html" not in request.headers.get("accept", ""):
        return None
    if status == 401:
        return _to_login(request)
    known = f"problem.{status}" in catalogue()
    return page(request, "problem.html", status=status, words=f"problem.{status if known else 500}")


def _to_login(request: Request) -> Response:
    here = request.url.path if request.method == "GET" else "/"
    address = f"/login?{urlencode({'next': here})}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)
