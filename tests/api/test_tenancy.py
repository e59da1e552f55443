"""Every route × every kind of caller, and the second wall alone."""

from typing import Any

import asyncpg
import pytest

WHO = ("anonymous", "revoked", "other", "same", "quality", "ops")
OPEN = (200,) * 6
FLEET_ONLY_OWN = (401, 401, 404, 200, 200, 200)
EDIT = (401, 401, 404, 200, 200, 403)
OWN_LIST = (401, 401, 200, 200, 200, 200)
PAGE = (303, 303, 404, 200, 200, 200)
PAGE_LIST = (303, 303, 200, 200, 200, 200)
PAGE_EDIT = (303, 303, 404, 303, 303, 403)
FORM = b"version=1&outcome=confirmed"

# (method, route) → status by caller in the order of WHO; {alert} and {vehicle} are of dealer D1.
MATRIX: dict[tuple[str, str], tuple[int, ...]] = {
    ("GET", "/v1/alerts"): OWN_LIST,
    ("GET", "/v1/alerts/{alert_id}"): FLEET_ONLY_OWN,
    ("POST", "/v1/alerts/{alert_id}/acknowledge"): EDIT,
    ("POST", "/v1/alerts/{alert_id}/close"): EDIT,
    ("GET", "/v1/vehicles/{public_id}"): FLEET_ONLY_OWN,
    ("GET", "/v1/vehicles/{public_id}/series"): FLEET_ONLY_OWN,
    ("GET", "/v1/events"): OWN_LIST,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/"): PAGE_LIST,
    ("GET", "/alerts/{alert_id}"): PAGE,
    ("GET", "/alerts/{alert_id}/row"): PAGE,
    ("POST", "/alerts/{alert_id}/acknowledge"): PAGE_EDIT,
    ("POST", "/alerts/{alert_id}/close"): PAGE_EDIT,
    ("GET", "/vehicles/{public_id}"): PAGE,
    ("GET", "/login"): OPEN,
    ("POST", "/login"): (401,) * 6,  # without a key in the form
    ("POST", "/logout"): (303,) * 6,
    ("GET", "/language"): (303,) * 6,
    ("GET", "/static/{digest}/{name:path}"): (404,) * 6,  # with a digest that is not the file's
}


def routes_of(app: Any) -> set[tuple[str, str]]:
    found = set()
    for context in app.router.routes:
        found |= {(method, path) for method, path in flatten(context)}
    return found


def flatten(route: Any) -> list[tuple[str, str]]:
    inner = getattr(route, "effective_route_contexts", None)
    if callable(inner):
        return [pair for context in inner() for pair in flatten(context)]
    return [(method, route.path) for method in (route.methods or ()) if method != "HEAD"]


async def test_every_route_has_a_row_in_the_matrix(app: Any) -> None:
    assert routes_of(app) == set(MATRIX)


@pytest.mark.parametrize("who", WHO)
async def test_every_route_answers_each_caller_as_the_matrix_says(api: Any, world: Any, who: str) -> None:
    for (method, route), expected in MATRIX.items():
        if route == "/v1/events":
            continue  # an endless answer: test_stream.py asks it as each caller
        plain = route.replace("{name:path}", "x")
        path = plain.format(alert_id=world.alerts["D1"], public_id=world.vehicles["D1"][1], digest="0")
        options: dict[str, Any] = {"headers": {"If-Match": "1"}}
        if route.endswith("/series"):
            options["params"] = {
                "columns": "soc_pct",
                "from": "2026-03-01T00:00:00Z",
                "to": "2026-03-01T01:00:00Z",
            }
        if route == "/language":
            options["params"] = {"to": "en"}
        if method == "POST" and route.endswith("close"):
            options |= {"json": {"outcome": "confirmed"}} if route.startswith("/v1") else {"content": FORM}
        elif method == "POST" and not route.startswith("/v1"):
            options["content"] = b"version=1"
        if not route.startswith("/v1"):
            options["headers"]["Accept"] = "text/html"
        await reset(world)
        answer = await api(who, method, path, **options)
        assert answer.status_code == expected[WHO.index(who)], (method, route, who, answer.text[:300])


async def reset(world: Any) -> None:
    """Put the alert back as it was raised, so that each edit starts alike."""
    admin = await asyncpg.connect(world.urls.admin, timeout=10)
    await admin.execute("UPDATE telltale.alert SET state = 'open', version = 1")
    await admin.close()


async def test_another_dealers_vehicle_and_no_vehicle_are_told_apart_by_nothing(api: Any, world: Any) -> None:
    absent = "00000000-0000-4000-8000-000000000000"
    for path, real in (("/v1/vehicles/{}", world.vehicles["D2"][1]), ("/v1/alerts/{}", world.alerts["D2"])):
        foreign, nothing = [await api("same", "GET", path.format(i)) for i in (real, absent)]
        assert (foreign.status_code, nothing.status_code) == (404, 404)
        assert foreign.text.replace(str(real), "") == nothing.text.replace(absent, "")
        assert sorted(foreign.headers) == sorted(nothing.headers)


@pytest.mark.parametrize("table", ["vehicle", "alert", "alert_event", "scoped_report"])
async def test_row_security_alone_hides_other_dealers(world: Any, table: str) -> None:
    for dealer in ("D1", "D2"):
        await world.store_reports(dealer, [b"\x0e\x74"])
    connection = await asyncpg.connect(
        world.urls.api, timeout=10, server_settings={"search_path": "telltale"}
    )
    key = "id" if table == "vehicle" else "vehicle_id"
    query = f"SELECT {key} FROM {table}"  # noqa: S608 - names of this file
    own = world.vehicles["D1"][0]
    seen = {}
    for scope in ("", "dealer:D1", "dealer:", "fleet"):
        async with connection.transaction():
            await connection.execute("SELECT set_config('telltale.scope', $1, true)", scope)
            seen[scope] = {row[0] for row in await connection.fetch(query)}
    outside = await connection.fetch(query)
    await connection.close()
    assert seen == {
        "": set(),
        "dealer:D1": {own},
        "dealer:": set(),
        "fleet": {v[0] for v in world.vehicles.values()},
    }
    assert outside == []


async def test_the_api_role_reaches_raw_readings_and_keys_of_others_by_no_write(world: Any) -> None:
    connection = await asyncpg.connect(
        world.urls.api, timeout=10, server_settings={"search_path": "telltale"}
    )
    for statement in ("SELECT * FROM report", "INSERT INTO vehicle (vin, vin_valid) VALUES ('x', false)",
                      "UPDATE api_key SET revoked_at = NULL", "DELETE FROM alert"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("token", ["", "tt_live_", "tt_live_000000000000_" + "0" * 48, "Bearer", "x" * 5000])
async def test_a_wrong_key_is_refused_with_a_challenge(api: Any, token: str) -> None:
    answer = await api("nobody", "GET", "/v1/alerts", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_right_id_with_another_secret_is_refused(api: Any, world: Any) -> None:
    wrong = world.keys["same"][:-4] + "0000"
    assert (
        await api("nobody", "GET", "/v1/alerts", headers={"Authorization": f"Bearer {wrong}"})
    ).status_code == 401


async def test_a_form_from_another_site_is_refused_even_with_the_cookie(api: Any, world: Any) -> None:
    cookie = {"Cookie": f"telltale_session={world.keys['same']}"}
    for evil in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}):
        answer = await api("nobody", "POST", f"/alerts/{world.alerts['D1']}/acknowledge",
                           headers=cookie | evil, content=b"version=1")  # fmt: skip
        assert answer.status_code == 403
    fine = cookie | {"Sec-Fetch-Site": "same-origin", "Origin": "http://telltale.test"}
    path = f"/alerts/{world.alerts['D1']}/acknowledge"
    own = await api("nobody", "POST", path, content=b"version=1", headers=fine)
    assert own.status_code == 303


async def test_a_login_link_becomes_a_cookie_and_leaves_the_address(api: Any, world: Any) -> None:
    answer = await api("nobody", "GET", "/login", params={"key": world.keys["same"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=lax" in answer.headers["set-cookie"]
    assert "script-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:x"])
async def test_login_sends_nobody_to_another_site(api: Any, world: Any, target: str) -> None:
    answer = await api("nobody", "GET", "/login", params={"key": world.keys["same"], "next": target})
    assert answer.headers["location"] == "/"
