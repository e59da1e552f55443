"""The written contracts: no drift from the code, and the JSON Schema judges as the decoder does."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from schemas.write import contracts

from telltale import records
from telltale.decode import json_reading
from telltale.records import Values

pytestmark = pytest.mark.unit
SCHEMAS = Path(__file__).parents[2] / "schemas"
GOOD: dict[str, Any] = {"vin": "L0TTE5T15RA000101", "observed_at": "2026-03-14T09:26:53+08:00"}


@pytest.mark.parametrize("name", sorted(contracts()))
def test_generated_contract_is_current(name: str) -> None:
    assert (SCHEMAS / name).read_text(encoding="utf-8") == contracts()[name], "run `make schemas`"


def test_every_report_column_is_fed_by_a_wire_field() -> None:
    fed = {line.split(",")[5].split(".")[0] for line in contracts()["signals.csv"].splitlines()[1:]}
    columns = {column.name for column in (*records.REPORT_SCALARS, *records.REPORT_LISTS)}
    assert columns <= fed


READINGS: list[tuple[bool, Any]] = [
    (True, GOOD),
    (True, [GOOD, GOOD]),
    (True, GOOD | {"observed_at": 1_773_451_613}),
    (True, GOOD | {"observed_at": 1_773_451_613.25}),
    (True, GOOD | {"speed_kmh": None, "cells_v": [3.6, None], "part": 3}),
    (True, GOOD | {"motors": [{"seq": 1, "torque_nm": -12.5}], "alarm_levels": [{"bit": 23, "level": 4}]}),
    (True, GOOD | {"fault_codes": [{"group": "battery", "code": 4_294_967_295}]}),
    (False, {"vin": GOOD["vin"]}),
    (False, GOOD | {"vin": ""}),
    (False, GOOD | {"vin": "L0TTE5T15RA000101X"}),
    (False, GOOD | {"vin": "L0TTE5T15RA00010\n"}),
    (False, GOOD | {"observed_at": "2026-03-14T09:26:53"}),
    (False, GOOD | {"observed_at": "yesterday"}),
    (False, GOOD | {"observed_at": -1}),
    (False, GOOD | {"observed_at": 10**18}),
    (False, GOOD | {"speed_kmh": "52"}),
    (False, GOOD | {"speed_kmh": 1e300}),
    (False, GOOD | {"gear": 1.5}),
    (False, GOOD | {"gear": 40_000}),
    (False, GOOD | {"speed": 52}),
    (False, GOOD | {"cells_v": [66]}),
    (False, GOOD | {"cells_v": 3.6}),
    (False, GOOD | {"fault_codes": [{"group": "wheels", "code": 1}]}),
    (False, GOOD | {"motors": [{"status": 1}]}),
    (False, 5),
    (False, None),
    (False, []),
]


@pytest.mark.parametrize(("good", "value"), READINGS)
def test_schema_and_decoder_agree(good: bool, value: Any) -> None:
    validator = jsonschema.Draft202012Validator(json_reading.schema())
    raw = json.dumps(value).encode()
    result = json_reading.decode(Values([raw], np.zeros(1, np.int64)))
    assert validator.is_valid(value) == good
    assert (not result.evidence) == good


def test_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_reading.schema())
