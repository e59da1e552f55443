"""GB/T 32960 frames to columns: what each byte becomes."""

import numpy as np
import pytest

from telltale import records
from telltale.decode import DECODERS, decoder_for
from telltale.decode.gbt32960 import decode
from telltale.decode.gbt32960.encode import encode_frame, encode_login, encode_logout, encode_reports
from telltale.errors import EncodeError
from telltale.records import Decoded, Flag, Values

pytestmark = pytest.mark.unit

VIN = "L0TTE5T15RA000101"
TIME = "1a030e091a35"  # 2026-03-14 09:26:53 +08:00
OBSERVED = 1_773_451_613_000_000
VEHICLE = "01010301020b0001e2400def278b4c012e14501700"  # 4.1
CELLS = "0801010def278b00040001040e10ffff0e2afffe"  # 4.8
PROBES = "090101000341ff2a"  # 4.9


def frame(*sections: str, command: int = 2, edition: int = 2016, time: str = TIME, vin: str = VIN) -> bytes:
    return encode_frame(vin, command, bytes.fromhex(time + "".join(sections)), edition=edition)


def decoded(*values: bytes, **settings: int) -> Decoded:
    return decode(Values(values, np.arange(len(values), dtype=np.int64)), **settings)


def test_the_decoder_is_found_by_its_protocol() -> None:
    assert decoder_for("gbt32960") is DECODERS[0]
    assert decoder_for("morse") is None


def test_vehicle_section_becomes_columns_in_units() -> None:
    row = decoded(frame(VEHICLE)).reports.rows.columns[0]
    assert row["observed_at"] == OBSERVED
    assert row["speed_kmh"] == np.float32(52.3)
    assert row["odometer_km"] == np.float32(12345.6)
    assert row["pack_voltage_v"] == np.float32(356.7)
    assert row["pack_current_a"] == np.float32(-12.3)  # stored positive into the pack
    assert row["soc_pct"] == 76
    assert row["insulation_kohm"] == 5200
    assert row["part"] == 0
    assert row["flags"] == 0


def test_current_sign_is_a_setting_of_the_source() -> None:
    rows = decoded(frame(VEHICLE, CELLS), current_sign=1).reports.rows
    assert rows.columns["pack_current_a"][0] == np.float32(12.3)
    assert rows.lists["subsystems"].row(0)["current_da"][0] == 123


def test_cells_keep_wire_markers_and_markers_are_counted() -> None:
    result = decoded(frame(CELLS, PROBES))
    lists = result.reports.rows.lists
    assert lists["cells_mv"].row(0).tolist() == [3600, 0xFFFF, 3626, 0xFFFE]
    assert lists["probes_ddegc"].row(0).tolist() == [250, records.PROBE_INVALID, 20]
    assert result.markers == {
        ("cells_mv", "invalid"): 1,
        ("cells_mv", "abnormal"): 1,
        ("probes_ddegc", "invalid"): 1,
    }
    subsystem = lists["subsystems"].row(0)[0]
    assert (subsystem["no"], subsystem["cells"], subsystem["probes"]) == (1, 4, 3)


def test_subsystems_join_cells_and_probes_by_number() -> None:
    cells = "0802020def278b00010001010e10010def278b00010001010e11"
    probes = "0903010001410300014302000142"
    lists = decoded(frame(VEHICLE, cells, probes)).reports.rows.lists
    assert lists["subsystems"].row(0)["no"].tolist() == [2, 1, 3]
    assert lists["cells_mv"].row(0).tolist() == [3600, 3601]
    assert lists["probes_ddegc"].row(0).tolist() == [260, 250, 270]


def test_reissued_report_has_the_digest_and_identity_of_the_realtime_one() -> None:
    reports = decoded(frame(VEHICLE), frame(VEHICLE, command=3)).reports
    first, second = reports.rows.columns
    assert first["digest"] == second["digest"]
    assert first["part"] == second["part"]
    assert second["flags"] == Flag.REISSUED
    assert first["source_id"] != second["source_id"]


def test_other_content_has_another_digest() -> None:
    rows = decoded(frame(VEHICLE), frame(VEHICLE[:-2] + "01")).reports.rows.columns
    assert rows["digest"][0] != rows["digest"][1]


def test_impossible_date_keeps_the_row_without_time() -> None:
    rows = decoded(frame(VEHICLE, time="1a021f000000")).reports.rows.columns  # 31 February
    assert rows["observed_at"][0] == np.iinfo(np.int64).min
    assert rows["flags"][0] == Flag.TIME_INVALID


def test_implausible_value_is_kept_and_flagged() -> None:
    fast = VEHICLE.replace("020b", "ea60")
    row = decoded(frame(fast)).reports.rows.columns[0]
    assert row["speed_kmh"] == 6000
    assert row["flags"] == Flag.OUT_OF_RANGE


def test_unknown_section_type_keeps_what_came_before_and_the_bytes() -> None:
    raw = frame(VEHICLE, "0a0102")
    result = decoded(raw)
    assert result.reports.rows.columns["soc_pct"][0] == 76
    assert result.reports.rows.columns["flags"][0] == Flag.PARTIAL
    (evidence,) = result.evidence
    assert (evidence.outcome, evidence.reason, evidence.byte_offset) == ("partial", "UNKNOWN_INFO_TYPE", 51)
    assert evidence.raw == raw


def test_report_of_which_nothing_decodes_is_rejected() -> None:
    result = decoded(frame("0a0102"), frame("0101"), frame())
    assert len(result.reports) == 0
    assert [e.reason for e in result.evidence] == ["UNKNOWN_INFO_TYPE", "INFO_TRUNCATED", "INFO_TRUNCATED"]


def test_last_of_two_equal_section_types_wins() -> None:
    row = decoded(frame(VEHICLE, VEHICLE.replace("4c", "4d"))).reports.rows.columns[0]
    assert row["soc_pct"] == 77
    assert row["flags"] == Flag.DUPLICATE_SECTION


def test_count_marker_gives_an_empty_list_and_the_next_section_decodes() -> None:
    result = decoded(frame("02fe", VEHICLE))
    assert len(result.reports.rows.lists["motors"].row(0)) == 0
    assert result.reports.rows.columns["soc_pct"][0] == 76
    assert result.markers == {("motors", "abnormal"): 1}


def test_part_tells_split_reports_apart() -> None:
    later = CELLS.replace("000104", "00c904")
    parts = decoded(
        frame(VEHICLE, CELLS), frame(CELLS), frame(VEHICLE, later), frame(PROBES), frame(VEHICLE)
    ).reports.rows.columns["part"]
    assert parts.tolist() == [0, (1 << 16) | 1, (1 << 16) | 201, -9, 0]


def test_encrypted_report_is_rejected_with_its_reason() -> None:
    raw = encode_frame(VIN, 2, bytes.fromhex(TIME + VEHICLE), encryption=3)
    assert [e.reason for e in decoded(raw).evidence] == ["ENCRYPTED"]


def test_rows_stay_in_arrival_order_whatever_their_layout() -> None:
    values = [frame(VEHICLE), frame(CELLS), frame(VEHICLE, PROBES), frame(CELLS), frame(VEHICLE)]
    reports = decoded(*values).reports
    assert reports.record.tolist() == [0, 1, 2, 3, 4]
    assert reports.rows.lists["cells_mv"].lengths.tolist() == [0, 4, 0, 4, 0]
    assert reports.rows.columns["received_at"].tolist() == [0, 1, 2, 3, 4]


def test_signature_is_flagged_and_no_content() -> None:
    plain = "01010301020b0001e2401be275ab4c012e1450"
    signed = "ff010002aabb0001cc"
    rows = decoded(frame(plain, edition=2025), frame(plain, signed, edition=2025)).reports.rows.columns
    assert rows["flags"].tolist() == [0, Flag.SIGNED]
    assert rows["digest"][0] == rows["digest"][1]


def test_login_carries_pack_codes_and_logout_its_sequence() -> None:
    login = encode_login(VIN, OBSERVED, 12, "89860099000000000101", ["PACK1", "PACK2"])
    result = decoded(login, encode_logout(VIN, OBSERVED, 12))
    first, second = result.sessions
    assert (first.kind, first.observed_at, first.sequence) == ("login", OBSERVED, 12)
    assert first.iccid == "89860099000000000101"
    assert first.pack_codes == ((1, "PACK1"), (2, "PACK2"))
    assert (second.kind, second.sequence, second.vin) == ("logout", 12, VIN)


def test_password_of_a_broken_platform_login_is_not_kept() -> None:
    body = bytes.fromhex(TIME + "0003") + b"fleetgw01\0\0\0" + b"very-secret-password" + b"\1\1"
    result = decoded(encode_frame("PLATFORM000000001", 5, body))
    (evidence,) = result.evidence
    assert evidence.reason == "BODY_LENGTH"
    assert b"secret" not in evidence.raw
    noisy = b"noise" + encode_frame("PLATFORM000000001", 5, body)[:-1] + b"?"
    (evidence,) = decoded(noisy).evidence
    assert b"secret" not in evidence.raw
    assert len(evidence.raw) == len(noisy)


def test_fuel_cell_rows_point_at_their_report() -> None:
    fuel = "030c800352007b00036e706d04510288b80301590401"
    reports = decoded(frame(VEHICLE), frame(VEHICLE, fuel)).reports
    assert reports.fuel_cell_row.tolist() == [1]
    row = reports.fuel_cell.columns[0]
    assert row["observed_at"] == OBSERVED
    assert row["stack_voltage_v"] == 320
    assert row["hydrogen_temp_max_degc"] == np.float32(70.5)
    assert reports.fuel_cell.lists["probes_ddegc"].row(0).tolist() == [700, 720, 690]


def test_encoder_gives_back_the_frame() -> None:
    raw = frame(VEHICLE, CELLS, PROBES)
    reports = decoded(raw).reports
    assert encode_reports(reports.rows, reports.vin) == [raw]


def test_encoder_refuses_what_the_wire_cannot_carry() -> None:
    reports = decoded(frame(VEHICLE)).reports
    reports.rows.columns["soc_pct"] = 400
    with pytest.raises(EncodeError, match="soc_pct of row 0"):
        encode_reports(reports.rows, reports.vin)
