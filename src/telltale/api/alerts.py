"""/v1/alerts: the list, one with its evidence, acknowledge and close."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from telltale.api import cursor as cursors
from telltale.api.advice import SEVERITY, advice_for
from telltale.api.auth import Editor, SignedIn
from telltale.api.models import Acknowledge, Alert, AlertDetail, AlertPage, Close
from telltale.api.problems import ProblemError, not_found, responses
from telltale.store.alerts import (
    AlertFilter,
    Edit,
    Edited,
    Severity,
    State,
    edit_alert,
    get_alert,
    list_alerts,
)
from telltale.store.keys import Caller
from telltale.store.scope import Scope

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])
MAX_LIMIT: Final = 200
_ETAG: Final = re.compile(r'(?:W/)?"?(\d{1,9})"?')

IfMatch = Annotated[str | None, Header(alias="If-Match", description='the alert\'s version, e.g. "3"')]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


def shown(alert: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """Return a stored alert as the API shows it to this scope: with advice and words, VIN masked for ops."""
    extra: dict[str, Any] = {
        "severity_words": SEVERITY[alert["severity"]],
        "advice": advice_for(alert["detector"], alert["evidence"]),
    }
    vehicle = alert["vehicle"]
    if vehicle is not None and scope.role == "ops":
        extra["vehicle"] = dict(vehicle) | {"vin": mask(vehicle["vin"])}
    return dict(alert) | extra


def mask(vin: str) -> str:
    """Return a VIN of which only the maker and the last three characters remain."""
    return vin[:3] + "*" * max(0, len(vin) - 6) + vin[-3:] if len(vin) > 6 else "*" * len(vin)


@router.get("", response_model=AlertPage, responses=responses(401, 422))
async def alerts(
    request: Request,
    caller: SignedIn,
    state: Annotated[list[State] | None, Query()] = None,
    severity: Annotated[list[Severity] | None, Query()] = None,
    detector: str | None = None,
    dealer: Annotated[str | None, Query(description="for keys of the fleet; a dealer sees its own")] = None,
    since: Annotated[datetime | None, Query(description="raised at or after, RFC 3339 with zone")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> AlertPage:
    """List alerts, newest first; go on with `cursor=<next>`."""
    wanted = AlertFilter(tuple(state or ()), tuple(severity or ()), detector, dealer, aware("since", since))
    try:
        after = cursors.decode(cursor) if cursor else None
    except cursors.CursorError as error:
        raise ProblemError(422, "invalid-cursor", str(error)) from error
    rows = await list_alerts(request.app.state.pool, caller.scope, wanted, after=after, limit=limit + 1)
    more = rows[limit - 1] if len(rows) > limit else None
    return AlertPage(
        items=[Alert.model_validate(shown(row, caller.scope)) for row in rows[:limit]],
        next=cursors.encode(more["raised_at"], more["id"]) if more else None,
    )


def aware(name: str, at: datetime | None) -> datetime | None:
    """Return a time that carries its zone; answer 422 to one that does not."""
    if at is not None and at.tzinfo is None:
        raise ProblemError(
            422, "invalid-request", f"{name}: expected a zone, as in 2026-03-01T08:00:00Z, got none"
        )
    return at


@router.get("/{alert_id}", response_model=AlertDetail, responses=responses(401, 404, 422))
async def alert(request: Request, response: Response, caller: SignedIn, alert_id: UUID) -> AlertDetail:
    """Return one alert with its evidence and history; its version is the ETag."""
    found = await get_alert(request.app.state.pool, caller.scope, alert_id)
    if found is None:
        raise not_found()
    return _detail(response, found, caller)


@router.post(
    "/{alert_id}/acknowledge",
    response_model=AlertDetail,
    responses=responses(401, 403, 404, 409, 412, 413, 422, 428),
)
async def acknowledge(
    request: Request,
    response: Response,
    caller: Editor,
    alert_id: UUID,
    body: Acknowledge | None = None,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> AlertDetail:
    """Take an open alert on."""
    note = body.note if body else ""
    edit = Edit(alert_id, version_of(if_match), None, note or None, idempotency_key)
    return _detail(response, accept(await edit_alert(request.app.state.pool, caller, edit)), caller)


@router.post(
    "/{alert_id}/close",
    response_model=AlertDetail,
    responses=responses(401, 403, 404, 409, 412, 413, 422, 428),
)
async def close(
    request: Request,
    response: Response,
    caller: Editor,
    alert_id: UUID,
    body: Close,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> AlertDetail:
    """Close an alert with what was found."""
    edit = Edit(alert_id, version_of(if_match), body.outcome, body.note or None, idempotency_key)
    return _detail(response, accept(await edit_alert(request.app.state.pool, caller, edit)), caller)


def version_of(if_match: str | None) -> int:
    """Return the version an If-Match names; answer 428 when there is none."""
    if if_match is None:
        raise ProblemError(428, "version-required", "Send If-Match with the `version` of the alert you read.")
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise ProblemError(
            422, "invalid-request", f'If-Match: expected one version, as in "3", got {if_match!r}'
        )
    return int(match[1])


def accept(edited: Edited) -> dict[str, Any]:
    """Return the edited alert, or answer why it was refused."""
    alert, refusal = edited.alert, edited.refusal
    if refusal == "key_reused":
        raise ProblemError(422, "idempotency-key-reused", "This Idempotency-Key belongs to another request.")
    if refusal == "not_found" or alert is None:
        raise not_found()
    now = {"version": alert["version"], "state": alert["state"]}
    if refusal == "version":
        raise ProblemError(
            412, "version-changed", "The alert changed since you read it; read it again.", **now
        )
    if refusal == "state":
        raise ProblemError(409, "state-conflict", f"The alert is already {alert['state']}.", **now)
    return alert


def _detail(response: Response, found: Mapping[str, Any], caller: Caller) -> AlertDetail:
    response.headers["ETag"] = f'"{found["version"]}"'
    return AlertDetail.model_validate(shown(found, caller.scope))
