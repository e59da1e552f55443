"""/v1/alerts against a real database, as role telltale_api."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from telltale.store.alerts import AlertFilter, list_alerts
from telltale.store.pool import open_pool
from telltale.store.scope import Scope

SOON = datetime(2026, 3, 2, tzinfo=UTC)


async def read(api: Any, path: str, who: str = "same", **options: Any) -> Any:
    answer = await api(who, "GET", path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_dealer_lists_its_own_alerts_only(api: Any, world: Any) -> None:
    page = await read(api, "/v1/alerts")
    assert [item["id"] for item in page["items"]] == [str(world.alerts["D1"])]
    assert page["items"][0]["severity_words"] == {"zh": "紧急", "en": "urgent"}
    assert page["next"] is None


async def test_asking_for_another_dealer_gives_an_empty_list_not_its_alerts(api: Any) -> None:
    assert (await read(api, "/v1/alerts?dealer=D2"))["items"] == []


async def test_the_fleet_sees_every_dealer_and_may_pick_one(api: Any, world: Any) -> None:
    both = await read(api, "/v1/alerts", "quality")
    assert {item["id"] for item in both["items"]} == {str(i) for i in world.alerts.values()}
    one = await read(api, "/v1/alerts?dealer=D2", "quality")
    assert [item["dealer"] for item in one["items"]] == ["D2"]


async def test_filters_narrow_by_state_severity_detector_and_time(api: Any, world: Any) -> None:
    wanted = await world.raise_alert("D1", detector="cell_voltage_low", component="cell:3", severity="watch")
    for query in (
        "severity=watch",
        "detector=cell_voltage_low",
        "severity=watch&severity=general&state=open",
    ):
        assert [i["id"] for i in (await read(api, f"/v1/alerts?{query}"))["items"]] == [str(wanted)]
    assert (await read(api, "/v1/alerts?state=closed"))["items"] == []
    assert (await read(api, "/v1/alerts?since=2999-01-01T00:00:00Z"))["items"] == []


async def test_the_cursor_walks_every_alert_once_also_when_times_are_equal(api: Any, world: Any) -> None:
    expected = {str(world.alerts["D1"])}
    for number in range(7):
        found = await world.raise_alert("D1", component=f"cell:{number}", raised_at=SOON)
        expected.add(str(found))
    seen, cursor = [], ""
    while cursor is not None:
        page = await read(api, f"/v1/alerts?limit=3{cursor and '&cursor=' + cursor}")
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == 8
    assert set(seen) == expected


@pytest.mark.parametrize(
    "query", ["cursor=abc", "cursor=AAAA", "limit=201", "limit=0", "state=lost", "since=2026-01-01T00:00:00"]
)
async def test_a_query_outside_the_contract_is_refused_as_a_problem(api: Any, query: str) -> None:
    answer = await api("same", "GET", f"/v1/alerts?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].startswith("urn:telltale:problem:")


async def test_one_alert_carries_evidence_history_advice_and_its_version(api: Any, world: Any) -> None:
    answer = await api("same", "GET", f"/v1/alerts/{world.alerts['D1']}")
    found = answer.json()
    assert found["evidence"] == {"value": 1.5}
    assert [event["kind"] for event in found["history"]] == ["raised"]
    assert all(found["advice"][language]["check"] for language in ("zh", "en"))
    assert found["happened_at"] == "2026-03-01T08:00:00Z" and found["seen_at"] == "2026-03-01T08:00:01Z"
    assert answer.headers["etag"] == '"1"'


async def test_operations_see_no_full_vin(api: Any, world: Any) -> None:
    path = f"/v1/alerts/{world.alerts['D1']}"
    assert (await read(api, path, "ops"))["vehicle"]["vin"] == "LTE***********001"
    assert (await read(api, path, "same"))["vehicle"]["vin"] == "LTELLTALE00000001"


async def post(
    api: Any, alert: uuid.UUID, verb: str, version: int | None, who: str = "same", **options: Any
) -> Any:
    headers = {"If-Match": f'"{version}"'} if version else {}
    headers |= options.pop("headers", {})
    return await api(who, "POST", f"/v1/alerts/{alert}/{verb}", headers=headers, **options)


async def test_acknowledge_then_close_moves_the_state_and_writes_history(api: Any, world: Any) -> None:
    alert = world.alerts["D1"]
    taken = await post(api, alert, "acknowledge", 1)
    assert (taken.status_code, taken.json()["state"], taken.headers["etag"]) == (200, "acknowledged", '"2"')
    closed = await post(api, alert, "close", 2, json={"outcome": "confirmed", "note": "泄漏已修复"})
    assert closed.status_code == 200
    found = closed.json()
    assert (found["state"], found["outcome"], found["note"], found["closed_by"]) == (
        "closed",
        "confirmed",
        "泄漏已修复",
        "same",
    )
    assert [e["kind"] for e in found["history"]] == ["raised", "acknowledged", "closed"]


async def test_a_stale_version_changes_nothing_and_says_which_is_current(api: Any, world: Any) -> None:
    alert = world.alerts["D1"]
    await post(api, alert, "acknowledge", 1)
    late = await post(api, alert, "close", 1, json={"outcome": "confirmed"})
    assert (late.status_code, late.json()["version"], late.json()["state"]) == (412, 2, "acknowledged")
    assert (await read(api, f"/v1/alerts/{alert}"))["state"] == "acknowledged"


async def test_an_edit_without_a_version_is_refused(api: Any, world: Any) -> None:
    assert (await post(api, world.alerts["D1"], "acknowledge", None)).status_code == 428


async def test_a_closed_alert_cannot_be_closed_again(api: Any, world: Any) -> None:
    alert = world.alerts["D1"]
    await post(api, alert, "close", 1, json={"outcome": "no_trouble_found"})
    again = await post(api, alert, "close", 2, json={"outcome": "confirmed"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:telltale:problem:state-conflict")


async def test_a_retry_with_the_same_idempotency_key_gets_the_first_answer(api: Any, world: Any) -> None:
    alert, once = world.alerts["D1"], {"Idempotency-Key": "k-1"}
    first = await post(api, alert, "close", 1, json={"outcome": "confirmed"}, headers=once)
    second = await post(api, alert, "close", 1, json={"outcome": "confirmed"}, headers=once)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert len(second.json()["history"]) == 2


async def test_an_idempotency_key_reused_for_another_request_is_refused(api: Any, world: Any) -> None:
    alert, once = world.alerts["D1"], {"Idempotency-Key": "k-2"}
    await post(api, alert, "acknowledge", 1, headers=once)
    other = await post(api, alert, "close", 2, json={"outcome": "confirmed"}, headers=once)
    assert (other.status_code, other.json()["type"]) == (422, "urn:telltale:problem:idempotency-key-reused")


async def test_a_reopened_finding_may_stand_beside_the_closed_one(api: Any, world: Any) -> None:
    await post(api, world.alerts["D1"], "close", 1, json={"outcome": "not_inspected"})
    fresh = await world.raise_alert("D1")
    assert [i["id"] for i in (await read(api, "/v1/alerts?state=open"))["items"]] == [str(fresh)]


async def test_a_body_over_the_limit_is_refused_as_a_problem(api: Any, world: Any) -> None:
    answer = await post(api, world.alerts["D1"], "close", 1, content=b"x" * 100_000)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


async def test_unknown_paths_and_methods_are_problems_too(api: Any) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("DELETE", "/v1/alerts", 405)):
        answer = await api("same", method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_crash_answers_500_without_its_cause(
    api: Any, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.state.pool.close()
    answer = await api("same", "GET", "/v1/alerts")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "pool" not in answer.text


async def test_requests_go_on_after_the_server_has_cut_every_connection(api: Any, world: Any) -> None:
    assert (await api("same", "GET", "/v1/alerts")).status_code == 200
    admin = await asyncpg.connect(world.urls.admin, timeout=10)
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'telltale-api' AND datname = current_database()"
    )
    assert await admin.fetchval(cut) > 0
    await admin.close()
    answers = [(await api("same", "GET", "/v1/alerts")).status_code for _ in range(3)]
    assert answers[-1] == 200 and set(answers) <= {200, 503}


async def test_a_database_that_is_away_is_said_with_when_to_try_again(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("telltale.api.auth.find_caller", away)
    answer = await api("same", "GET", "/v1/alerts")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_vehicle_that_moved_leaves_its_old_alert_readable_and_itself_hidden(
    api: Any, world: Any, database_urls: Any
) -> None:
    owner = await asyncpg.connect(database_urls.owner, timeout=10)
    await owner.execute("UPDATE telltale.vehicle SET dealer = 'D2' WHERE id = $1", world.vehicles["D1"][0])
    await owner.close()
    found = await read(api, f"/v1/alerts/{world.alerts['D1']}")
    assert found["vehicle"] is None
    assert (await api("same", "GET", f"/v1/vehicles/{world.vehicles['D1'][1]}")).status_code == 404


async def test_series_keep_extremes_and_decode_cells(api: Any, world: Any) -> None:
    cells = [(3700 + i).to_bytes(2, "big") + (3600).to_bytes(2, "big") + b"\xff\xff" for i in range(100)]
    cells[50] = (2500).to_bytes(2, "big") + (3600).to_bytes(2, "big") + (4200).to_bytes(2, "big")
    await world.store_reports("D1", cells)
    start = datetime(2026, 3, 1, 8, tzinfo=UTC)
    query = {"columns": "pack_voltage_v,cells", "from": start.isoformat(), "points": 10, "cell": 1,
             "to": (start + timedelta(seconds=1000)).isoformat()}  # fmt: skip
    found = await read(api, f"/v1/vehicles/{world.vehicles['D1'][1]}/series", params=query)
    assert (found["rows"], len(found["t"]), found["bucket_s"]) == (100, 10, 100.0)
    volts = found["columns"]["pack_voltage_v"]
    assert (volts["unit"], volts["min"][0], volts["max"][-1]) == ("V", 300.0, 399.0)
    assert (min(found["cells"]["min"]), max(found["cells"]["max"])) == (2.5, 4.2)
    assert min(found["cells"]["cell"]["min"]) == 2.5


async def test_a_vehicle_shows_its_newest_report_and_open_alerts(api: Any, world: Any) -> None:
    await world.store_reports("D1", [b"\x0e\x74"] * 3)
    found = await read(api, f"/v1/vehicles/{world.vehicles['D1'][1]}")
    assert found["newest"]["observed_at"] == "2026-03-01T08:00:20Z"
    assert found["newest"]["pack_voltage_v"] == 302.0
    assert [a["id"] for a in found["alerts"]] == [str(world.alerts["D1"])]


async def test_a_condition_that_worsened_shows_its_present_severity(api: Any, world: Any) -> None:
    alert = await world.raise_alert("D1", severity="general", component="cell:7")
    await world.ingest.execute(
        "INSERT INTO alert_event (alert_id, vehicle_id, dealer, kind, actor, payload) "
        "SELECT id, vehicle_id, dealer, 'escalated', 'safety/1', '{\"severity\": \"urgent\"}' "
        "FROM alert WHERE id = $1",
        alert,
    )
    listed = (await read(api, "/v1/alerts?severity=urgent"))["items"]
    assert str(alert) in {item["id"] for item in listed}


async def test_the_work_list_shows_the_most_severe_first_page_by_page(world: Any) -> None:
    for number, severity in enumerate(("general", "urgent", "important", "general")):
        await world.raise_alert("D1", severity=severity, component=f"cell:{number}")
    pool = await open_pool(world.urls.api, role_name="api", timeout_s=5)
    seen: list[str] = []
    after = None
    while rows := await list_alerts(
        pool, Scope("dealer", "D1"), AlertFilter(), after=after, limit=2, urgent_first=True
    ):
        seen += [row["severity"] for row in rows]
        after = (rows[-1]["raised_at"], rows[-1]["id"])
    await pool.close()
    assert seen == ["urgent", "urgent", "important", "general", "general"]
