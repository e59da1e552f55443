"""What a dealer works with: the live list of alerts, one alert, one vehicle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from telltale.api import cursor as cursors
from telltale.api.alerts import accept, shown
from telltale.api.auth import find, refuse_foreign_form
from telltale.api.pages import shape
from telltale.api.pages.render import page
from telltale.api.pages.session import form_of
from telltale.api.pages.words import language_of
from telltale.api.problems import ProblemError, not_found
from telltale.store.alerts import (
    AlertFilter,
    Edit,
    Outcome,
    Severity,
    count_open,
    edit_alert,
    get_alert,
    list_alerts,
)
from telltale.store.keys import Caller
from telltale.store.views import get_vehicle

router = APIRouter(include_in_schema=False)
View = Literal["todo", "watch", "closed"]
PAGE: Final = 50
_WORK: Final[tuple[Severity, ...]] = ("urgent", "important", "general")
VIEWS: Final[dict[View, AlertFilter]] = {
    "todo": AlertFilter(("open", "acknowledged"), _WORK),
    "watch": AlertFilter(("open", "acknowledged"), ("watch",)),
    "closed": AlertFilter(("closed",)),
}
LIVE: Final = timedelta(minutes=30)
FOLLOWED: Final = timedelta(hours=3)  # a longer chart does not move visibly, and is dear to read again


async def reader(request: Request) -> Caller:
    """Return who reads this page; anyone else is sent to sign in first."""
    refuse_foreign_form(request)
    caller = await find(request)
    if caller is None:
        raise ProblemError(401, "unauthorized", "Open your login link first.")
    return caller


Reader = Annotated[Caller, Depends(reader)]


def belongs(alert: dict[str, Any], view: View) -> bool:
    """Tell whether an alert stands in a view."""
    wanted = VIEWS[view]
    return alert["state"] in wanted.states and (
        not wanted.severities or alert["severity"] in wanted.severities
    )


@router.get("/")
async def alerts(
    request: Request,
    caller: Reader,
    view: View = "todo",
    cursor: Annotated[str | None, Query()] = None,
) -> Response:
    """The list: work by severity, everything else newest first."""
    pool = request.app.state.pool
    try:
        after = cursors.decode(cursor) if cursor else None
    except cursors.CursorError as error:
        raise ProblemError(422, "invalid-cursor", str(error)) from error
    rows = await list_alerts(
        pool, caller.scope, VIEWS[view], after=after, limit=PAGE + 1, urgent_first=view == "todo"
    )
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return page(
        request,
        "alerts.html",
        caller=caller,
        view=view,
        views=get_args(View),
        alerts=[shown(row, caller.scope) for row in rows[:PAGE]],
        counts=await count_open(pool, caller.scope),
        older=cursors.encode(last["raised_at"], last["id"]) if last else None,
        first_page=cursor is None,
    )


@router.get("/alerts/{alert_id}/row")
async def row(
    request: Request, caller: Reader, alert_id: UUID, view: View = "todo", present: bool = False
) -> Response:
    """One entry of the list and the counts, for the script that keeps the list live."""
    pool = request.app.state.pool
    alert = await get_alert(pool, caller.scope, alert_id)
    if alert is None:
        raise not_found()
    fits = belongs(alert, view)
    if not fits and not present:
        return Response(status_code=204)
    counts = await count_open(pool, caller.scope)
    response = page(
        request, "row.html", caller=caller, alert=shown(alert, caller.scope), counts=counts, fits=fits
    )
    if not fits:
        response.headers["HX-Reswap"] = "delete"
    return response


@router.get("/alerts/{alert_id}")
async def alert(request: Request, caller: Reader, alert_id: UUID) -> Response:
    """One alert: what, why, what to do."""
    found = await get_alert(request.app.state.pool, caller.scope, alert_id)
    if found is None:
        raise not_found()
    return _alert_page(request, caller, found, "alert.html")


@router.post("/alerts/{alert_id}/acknowledge")
async def acknowledge(request: Request, caller: Reader, alert_id: UUID) -> Response:
    """Take an alert on, from the form."""
    return await _change(request, caller, alert_id, closing=False)


@router.post("/alerts/{alert_id}/close")
async def close(request: Request, caller: Reader, alert_id: UUID) -> Response:
    """Close an alert, from the form."""
    return await _change(request, caller, alert_id, closing=True)


async def _change(request: Request, caller: Caller, alert_id: UUID, *, closing: bool) -> Response:
    """Apply a form; a script gets the changed part of the page, a plain form is sent back to it."""
    edit = _edit(await form_of(request), alert_id, closing=closing)
    if not caller.scope.may_edit:
        raise ProblemError(403, "read-only", "A key of role ops reads; it does not edit alerts.")
    edited = await edit_alert(request.app.state.pool, caller, edit)
    if edited.refusal in ("version", "state") and edited.alert is not None:
        return _alert_page(request, caller, edited.alert, _part(request), status=409, conflict=True)
    found = accept(edited)
    if "hx-request" in request.headers:
        return _alert_page(request, caller, found, "alert_body.html")
    return RedirectResponse(f"/alerts/{alert_id}", 303)


def _edit(form: dict[str, str], alert_id: UUID, *, closing: bool) -> Edit:
    outcomes: dict[str, Outcome] = {name: name for name in get_args(Outcome)}
    outcome = outcomes.get(form.get("outcome", ""))
    version = form.get("version", "")
    if (closing and outcome is None) or not version.isascii() or not version.isdigit() or len(version) > 9:
        raise ProblemError(422, "invalid-request", "The form is incomplete: an outcome is needed.")
    note = form.get("note", "").strip()[:2000]
    key = form.get("once", "")[:200]
    return Edit(alert_id, int(version), outcome if closing else None, note or None, key or None)


def _part(request: Request) -> str:
    return "alert_body.html" if "hx-request" in request.headers else "alert.html"


def _alert_page(
    request: Request,
    caller: Caller,
    found: dict[str, Any],
    template: str,
    *,
    status: int = 200,
    conflict: bool = False,
) -> Response:
    language = language_of(request)
    vehicle = found["vehicle"]
    start, end = shape.stretch(found)
    cell = shape.cell_of(found["component"])
    urls = {
        columns: shape.series_url(vehicle["public_id"], columns, start, end, cell)
        for columns in ("cells", ",".join(shape.signals_of(found["detector"])))
        if vehicle
    }
    return page(
        request,
        template,
        caller=caller,
        status=status,
        alert=shown(found, caller.scope),
        reasons=shape.reasons(language, found["evidence"]),
        facts=shape.facts(language, found["evidence"]),
        charts=urls,
        cell=cell,
        live=datetime.now(UTC) < end and end - start <= FOLLOWED,
        outcomes=get_args(Outcome),
        once=uuid4(),
        conflict=conflict,
    )


@router.get("/vehicles/{public_id}")
async def vehicle(request: Request, caller: Reader, public_id: UUID) -> Response:
    """One vehicle: what it is, how it was in its last half hour, what is open."""
    pool = request.app.state.pool
    found = await get_vehicle(pool, caller.scope, public_id)
    if found is None:
        raise not_found()
    wanted = AlertFilter(("open", "acknowledged"), vehicle=public_id)
    rows = await list_alerts(pool, caller.scope, wanted, limit=PAGE, urgent_first=True)
    newest = found["newest"]
    end = newest["observed_at"] if newest else datetime.now(UTC)
    live = datetime.now(UTC) - end < LIVE
    urls = {
        columns: shape.series_url(public_id, columns, end - LIVE, end + timedelta(seconds=1), None)
        for columns in ("cells", ",".join((*shape.USUAL, "cell_temp_max_degc", "cell_temp_min_degc")))
    }
    return page(
        request,
        "vehicle.html",
        caller=caller,
        vehicle=found,
        alerts=[shown(alert, caller.scope) for alert in rows],
        charts=urls if newest else {},
        live=live,
    )
