"""What an import of vehicles leaves in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from telltale.errors import SettingsError
from telltale.store.pool import connect
from telltale.store.vehicles import import_vehicles

VIN = "LTEST000000000001"
THEN, LATER = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
async def owner(database_urls: Any) -> AsyncIterator[Any]:
    connection = await connect(database_urls.owner, role_name="test", timeout_s=10)
    yield connection
    await connection.close()


async def load(owner: Any, *rows: dict[str, str], valid_from: datetime = THEN) -> int:
    return await import_vehicles(owner, rows, origin="test", valid_from=valid_from)


async def test_an_unknown_vehicle_is_registered_with_what_the_row_says(owner: Any) -> None:
    row = {
        "vin": VIN,
        "variant": "Sedan",
        "nominal_capacity_ah": "150",
        "build_date": "2023-02-03",
        "dealer": "",
    }
    assert await load(owner, row) == 1
    vehicle = await owner.fetchrow("SELECT * FROM vehicle WHERE vin = $1", VIN)
    assert (vehicle["variant"], vehicle["nominal_capacity_ah"], vehicle["dealer"]) == ("Sedan", 150, None)
    assert vehicle["build_date"].isoformat() == "2023-02-03"
    assert vehicle["vin_valid"]


async def test_importing_the_same_again_adds_nothing(owner: Any) -> None:
    for _ in range(2):
        await load(owner, {"vin": VIN, "variant": "Sedan", "dealer": "D1"})
    assert await owner.fetchval("SELECT count(*) FROM vehicle_attribute") == 2


async def test_a_new_dealer_does_not_erase_who_it_was_before(owner: Any) -> None:
    await load(owner, {"vin": VIN, "dealer": "D1"})
    await load(owner, {"vin": VIN, "dealer": "D2"}, valid_from=LATER)
    history = await owner.fetch("SELECT value, valid_from FROM vehicle_attribute ORDER BY valid_from")
    assert [tuple(row) for row in history] == [("D1", THEN), ("D2", LATER)]
    assert await owner.fetchval("SELECT dealer FROM vehicle") == "D2"


async def test_what_was_told_late_of_an_earlier_day_is_not_todays_value(owner: Any) -> None:
    await load(owner, {"vin": VIN, "dealer": "D2"}, valid_from=LATER)
    await load(owner, {"vin": VIN, "dealer": "D1"}, valid_from=THEN)
    assert await owner.fetchval("SELECT dealer FROM vehicle") == "D2"


async def test_a_value_that_is_no_date_is_named_with_its_line_and_nothing_is_stored(owner: Any) -> None:
    with pytest.raises(SettingsError, match="line 3"):
        await load(owner, {"vin": VIN, "dealer": "D1"}, {"vin": VIN, "build_date": "13/2023"})
    assert await owner.fetchval("SELECT count(*) FROM vehicle") == 0


async def test_an_unknown_column_is_named(owner: Any) -> None:
    with pytest.raises(SettingsError, match="colour"):
        await load(owner, {"vin": VIN, "colour": "red"})
