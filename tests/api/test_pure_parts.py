"""Parts of the API that need no server: scope, keys, cursors, series, the contract, static files."""

import hashlib
import json
import uuid
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from telltale.api import cursor, series
from telltale.api.alerts import mask
from telltale.api.app import create_app, openapi_json
from telltale.api.pages.assets import assets, static_url
from telltale.api.pages.session import inside
from telltale.api.pages.words import accepted
from telltale.api.stream import BUFFER, Client
from telltale.config import Settings
from telltale.errors import SettingsError
from telltale.store.feed import Event, Position, parse_position
from telltale.store.keys import mint, split_token
from telltale.store.scope import Scope

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
nan = float("nan")


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_brings_back_the_key_it_was_made_of(at: datetime, alert: uuid.UUID) -> None:
    assert cursor.decode(cursor.encode(at, alert)) == (at, alert)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_other_text_as_cursor_is_refused_by_its_own_error(text: str) -> None:
    try:
        cursor.decode(text)
    except cursor.CursorError as error:
        assert "cursor" in str(error)


def test_a_scope_needs_a_dealer_exactly_when_its_role_is_dealer() -> None:
    assert Scope("dealer", "D1").setting == "dealer:D1"
    assert Scope("ops").setting == "fleet"
    for role, dealer in (("dealer", None), ("dealer", ""), ("quality", "D1")):
        with pytest.raises(SettingsError):
            Scope(role, dealer)  # type: ignore[arg-type]


def test_a_scope_sees_its_own_dealer_and_the_fleet_sees_all() -> None:
    assert Scope("dealer", "D1").sees("D1")
    assert not Scope("dealer", "D1").sees("D2")
    assert not Scope("dealer", "D1").sees(None)
    assert Scope("quality").sees(None)


def test_a_new_key_shows_its_secret_nowhere_but_in_the_token() -> None:
    key = mint()
    split = split_token(key.token)
    assert split is not None and split[0] == key.id
    assert hashlib.sha256(split[1].encode()).digest() == key.digest
    assert split[1] not in repr(key)


@pytest.mark.parametrize("vin", ["LTELLTALE00000001", "SHORT", ""])
def test_a_masked_vin_hides_at_least_the_serial_number(vin: str) -> None:
    assert len(mask(vin)) == len(vin)
    assert not vin or mask(vin) != vin


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6) | st.just(nan)),
    arrays.arrays(np.int64, 60, elements=st.integers(0, 5)),
)
def test_buckets_keep_every_extreme_and_no_nan_hides_a_number(
    values: "np.ndarray", steps: "np.ndarray"
) -> None:
    numbers = np.cumsum(steps[: len(values)])
    buckets = series.group(numbers)
    low, high, middle = buckets.lowest(values), buckets.highest(values), buckets.median(values)
    for place, number in enumerate(buckets.numbers):
        known = values[(numbers == number) & ~np.isnan(values)]
        expected = (known.min(), known.max(), np.median(known)) if len(known) else (nan, nan, nan)
        np.testing.assert_array_equal((low[place], high[place], middle[place]), expected)


def test_no_rows_give_no_buckets() -> None:
    buckets = series.group(np.zeros(0, np.int64))
    assert len(buckets.lowest(np.zeros(0))) == 0
    assert series.cells_matrix([], [], np.zeros(0, np.int64)).shape == (0, 0)


def test_cells_are_read_in_volts_with_markers_as_nan_and_split_reports_joined() -> None:
    first, second = (
        bytes.fromhex("0e74 ffff"),
        bytes.fromhex("fffe 0fa0"),
    )  # 3.700 V, invalid; abnormal, 4.000 V
    matrix = series.cells_matrix([first, second, first], [0, 200, 0], np.array([0, 0, 1]))
    assert matrix.shape == (2, 202)
    assert (matrix[0, 0], matrix[0, 201], matrix[1, 0]) == (3.7, 4.0, 3.7)
    assert np.isnan(matrix[0, [1, 200]]).all()


@settings(deadline=None)
@given(arrays.arrays(np.float64, (7, 5), elements=st.floats(0, 5) | st.just(nan)))
def test_the_band_across_cells_is_what_numpy_says_of_the_known_ones(matrix: "np.ndarray") -> None:
    low, median, high = series.across(matrix)
    for row, *found in zip(matrix, low, median, high, strict=True):
        known = row[~np.isnan(row)]
        expected = (known.min(), np.median(known), known.max()) if len(known) else (nan, nan, nan)
        np.testing.assert_allclose(found, expected)


def test_a_hole_in_time_breaks_the_line_and_an_ordinary_step_does_not() -> None:
    starts = np.array([0.0, 10, 20, 30, 1000, 1010])
    at = series.gaps(starts)
    assert at.tolist() == [4]
    assert series.broken(np.arange(6.0), at) == [0, 1, 2, 3, None, 4, 5]
    assert series.broken_times(starts, at) == [0, 10, 20, 30, 515, 1000, 1010]


@pytest.mark.parametrize(("text", "expected"), [("12-3", Position(12, 3)), ("12-0", Position(12)),
                                                ("12", None), ("-3", None), ("1e3-1", None), ("９-1", None),
                                                ("1" * 40 + "-1", None)])  # fmt: skip
def test_an_event_id_is_a_position_or_nothing(text: str, expected: Position | None) -> None:
    assert parse_position(text) == expected


def test_a_client_that_does_not_read_is_cut_off_with_a_bounded_buffer() -> None:
    client = Client(Scope("quality"), Position(1))
    for number in range(BUFFER * 3):
        client.offer(Event(Position(2, number), "D1", b"{}"))
    assert client.lagging
    assert client.queue.qsize() == BUFFER


@pytest.mark.parametrize(("header", "expected"), [
    ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,zh;q=0.5", "en"), ("de,en;q=0.2,zh;q=0.4", "zh"),
    ("de", None), ("", None), ("en;q=0", None), ("en;q=x", None)])  # fmt: skip
def test_the_language_is_the_one_the_browser_ranks_first(header: str, expected: str | None) -> None:
    assert accepted(header) == expected


@pytest.mark.parametrize(("path", "expected"), [("/alerts/1", "/alerts/1"), ("//x", "/"), ("/\\x", "/"),
                                                (None, "/"), ("http://x", "/"), ("/a\nb", "/"),
                                                ("/login?key=1", "/")])  # fmt: skip
def test_only_paths_of_this_site_are_gone_to(path: str | None, expected: str) -> None:
    assert inside(path) == expected


def test_vendored_files_are_the_ones_in_the_manifest_byte_for_byte() -> None:
    folder = Path(str(resources.files("telltale.api"))) / "static" / "vendor"
    listed = {entry["file"]: entry for entry in json.loads((folder / "manifest.json").read_text())["files"]}
    found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()} - {"manifest.json"}
    assert found == set(listed)
    for name, entry in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"], name
    for package in {Path(name).parent for name in listed}:
        assert str(package / "LICENSE") in listed


def test_static_files_are_served_under_their_digest_and_typed() -> None:
    assert {asset.media_type for asset in assets().values()} <= {
        "text/css", "text/javascript", "application/javascript", "image/svg+xml"}  # fmt: skip
    assert assets()["app.css"].digest in static_url("app.css")


def test_the_committed_contract_is_the_one_that_is_served() -> None:
    served = openapi_json(create_app(Settings()))
    committed = (ROOT / "schemas" / "openapi.json").read_bytes()
    assert served == committed, "schemas/openapi.json is out of date: make schemas"
    contract = json.loads(served)
    assert contract["openapi"].startswith("3.1")
    for path, methods in contract["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1"):
                assert operation["security"], (method, path)
                assert "application/problem+json" in operation["responses"]["401"]["content"]
