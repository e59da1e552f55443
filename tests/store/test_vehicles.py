"""Vehicle attributes: checked as a whole, kept with history, answered as of a day."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.servers.postgres import DatabaseUrls

from telltale.errors import SettingsError
from telltale.store.pool import Connection, connect
from telltale.store.vehicles import Imported, as_of, import_vehicles, read_vehicles, write

NOW = datetime(2026, 6, 1, tzinfo=UTC)
A, B = "LTESTA00000000001", "LTESTB00000000002"


def save(folder: Path, text: str) -> Path:
    path = folder / "fleet.csv"
    path.write_text(text, encoding="utf-8")
    return path


async def load(connection: Connection, folder: Path, text: str) -> Imported:
    return await write(connection, read_vehicles(save(folder, text), NOW), "fleet.csv")


@pytest.mark.unit
def test_every_fault_is_named_with_line_and_column(tmp_path: Path) -> None:
    text = (
        "vin,nominal_capacity_ah,build_date,valid_from\n"
        f"{A},abc,2024-02-30,\n"
        "SHORT,150,2024-01-01,soon\n"
        f"{B},-1,,2031-01-01\n"
        f"{B},150,,2031-01-01\n"
        f"{A},150,,,extra\n"
    )
    with pytest.raises(SettingsError) as caught:
        read_vehicles(save(tmp_path, text), NOW)
    lines = str(caught.value).splitlines()
    assert lines == [
        "fleet.csv: nothing was imported",
        'line 2, nominal_capacity_ah: expected ampere-hours between 0 and 10000, got "abc"',
        'line 2, build_date: expected a date like 2024-03-31, got "2024-02-30"',
        "line 3, vin: expected 17 of A-Z and 0-9 without I, O and Q, got 5 characters",
        'line 3, valid_from: expected a date or time like 2024-03-31 or 2024-03-31T08:00+08:00, got "soon"',
        'line 4, nominal_capacity_ah: expected ampere-hours between 0 and 10000, got "-1"',
        'line 4, valid_from: expected a time that has come, got "2031-01-01"',
        'line 5, valid_from: expected a time that has come, got "2031-01-01"',
        "line 6: expected as many cells as headings, got more",
        "line 5: expected one line a vehicle and valid_from, got line 4 again",
        "line 6: expected one line a vehicle and valid_from, got line 2 again",
    ]


@pytest.mark.unit
@pytest.mark.parametrize("heading", ["", "variant\n", "vin,colour\n", "vin;variant\n", "vin,dealer,dealer\n"])
def test_a_file_with_other_headings_is_refused(tmp_path: Path, heading: str) -> None:
    with pytest.raises(SettingsError, match="line 1: expected the column vin"):
        read_vehicles(save(tmp_path, heading), NOW)


@pytest.mark.unit
def test_a_file_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_bytes(f"vin,variant\n{A},长续航\n".encode("gb18030"))
    with pytest.raises(SettingsError, match="save it as CSV UTF-8"):
        read_vehicles(path, NOW)


async def test_importing_twice_adds_nothing_the_second_time(
    database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    owner = await connect(database_urls.owner, role_name="vehicles", timeout_s=30)
    await owner.execute("INSERT INTO vehicle (vin, vin_valid) VALUES ($1, true)", A)
    text = (
        "\ufeffvin,variant,chemistry,nominal_capacity_ah,build_date,dealer\r\n"
        f"{A},长续航,LFP,150.0,2024-03-01,D1\r\n{B},标准,NMC,120,,\r\n"
    )
    assert await load(owner, tmp_path, text) == Imported(vehicles=2, registered=1, changes=8)
    assert await load(owner, tmp_path, text) == Imported(vehicles=2, registered=0, changes=0)
    row = await owner.fetchrow("SELECT * FROM vehicle WHERE vin = $1", A)
    seen = (row["variant"], row["nominal_capacity_ah"], str(row["build_date"]), row["dealer"], row["region"])
    assert seen == ("长续航", 150.0, "2024-03-01", "D1", None)
    await owner.close()


async def test_what_was_known_on_a_day_has_one_answer(database_urls: DatabaseUrls, tmp_path: Path) -> None:
    owner = await connect(database_urls.owner, role_name="vehicles", timeout_s=30)
    await load(owner, tmp_path, f"vin,dealer,valid_from\n{A},D1,\n")
    before = await owner.fetchval("SELECT clock_timestamp()")
    # Told later: since March the vehicle has been with D2, in January it was with D0.
    text = f"vin,dealer,valid_from\n{A},D2,2026-03-01\n{A},D0,2026-01-01\n{A},D0,2026-01-15T08:00+08:00\n"
    assert (await load(owner, tmp_path, text)).changes == 2
    after = await owner.fetchval("SELECT clock_timestamp()")
    vehicle = await owner.fetchval("SELECT id FROM vehicle")

    async def dealer(month: int, known_at: datetime) -> str:
        return (await as_of(owner, [vehicle], datetime(2026, month, 20, tzinfo=UTC), known_at))[vehicle][
            "dealer"
        ]

    assert [await dealer(month, before) for month in (1, 2, 4)] == ["D1", "D1", "D1"]
    assert [await dealer(month, after) for month in (1, 2, 4)] == ["D0", "D0", "D2"]
    assert await owner.fetchval("SELECT dealer FROM vehicle") == "D2"
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    assert await as_of(owner, [vehicle], long_ago, long_ago) == {vehicle: {}}
    await owner.close()


async def test_a_correction_of_the_past_leaves_the_present_alone(
    database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    owner = await connect(database_urls.owner, role_name="vehicles", timeout_s=30)
    await load(owner, tmp_path, f"vin,software_version,valid_from\n{A},2.0,2026-03-01\n")
    await load(owner, tmp_path, f"vin,software_version,valid_from\n{A},1.0,2025-03-01\n")
    assert await owner.fetchval("SELECT software_version FROM vehicle") == "2.0"
    await load(owner, tmp_path, f"vin,software_version\n{A},2.1\n")
    assert await owner.fetchval("SELECT software_version FROM vehicle") == "2.1"
    assert await owner.fetchval("SELECT count(*) FROM vehicle_attribute") == 3
    await owner.close()


async def test_rows_of_a_program_are_checked_like_a_file(database_urls: DatabaseUrls) -> None:
    owner = await connect(database_urls.owner, role_name="vehicles", timeout_s=30)
    rows = [{"vin": A.lower(), "dealer": "D1"}, {"vin": B, "build_date": "13/2023"}]
    with pytest.raises(SettingsError, match="line 3, build_date"):
        await import_vehicles(owner, rows, origin="test")
    with pytest.raises(SettingsError, match="colour"):
        await import_vehicles(owner, [{"vin": A, "colour": "red"}], origin="test")
    assert await owner.fetchval("SELECT count(*) FROM vehicle") == 0
    then = datetime(2024, 1, 1, tzinfo=UTC)
    assert await import_vehicles(owner, rows[:1], origin="test", valid_from=then) == 1
    assert await owner.fetchval("SELECT valid_from FROM vehicle_attribute") == then
    await owner.close()
