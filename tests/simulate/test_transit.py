"""From reports to frames: what is decoded is what was simulated, and troubles are as many as told."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from telltale.decode import decoder_for
from telltale.records import Values
from telltale.simulate import FleetSpec, Trouble, demo_fleet, messages, simulate, start_transit
from telltale.simulate.spec import US
from telltale.simulate.transit import encode

pytestmark = pytest.mark.unit

SPEC = FleetSpec(seed=5, vehicles=8, start_us=1_790_000_000 * US, days=1, interval_s=120)


def decode(frames):
    received = np.array([frame.received_at for frame in frames], np.int64)
    return decoder_for("gbt32960").decode(Values([frame.value for frame in frames], received))


def test_decoded_frames_equal_the_simulated_reports():
    for chunk in simulate(SPEC):
        decoded = decode(encode(chunk, 2))
        assert not decoded.evidence
        assert (decoded.reports.vin == chunk.vin).all()
        ours, theirs = chunk.rows.columns, decoded.reports.rows.columns
        for name in ours.dtype.names:
            if name not in ("vehicle_id", "source_id", "digest", "received_at"):
                assert np.allclose(
                    ours[name].astype(float), theirs[name].astype(float), atol=1e-3, equal_nan=True
                ), name
        for name in ("cells_mv", "probes_ddegc", "subsystems", "motors"):
            assert (chunk.rows.lists[name].values == decoded.reports.rows.lists[name].values).all(), name


def test_a_quiet_way_carries_every_report_once_in_order():
    transit = start_transit(Trouble(), 5)
    for chunk in simulate(SPEC):
        out = transit.carry(chunk)
        assert [frame.value for frame in out.live] == [frame.value for frame in encode(chunk, 2)]
        assert not out.backlog
    assert not len(transit.drain())


def test_offline_hours_come_later_as_reissued_and_nothing_is_lost():
    transit = start_transit(Trouble(offline=0.3), 5)
    live, backlog, reports = [], [], 0
    for chunk in simulate(SPEC):
        out = transit.carry(chunk)
        live, backlog, reports = live + out.live, backlog + out.backlog, reports + len(chunk)
    backlog += transit.drain().backlog
    assert len(live) + len(backlog) == reports
    assert 0.1 < len(backlog) / reports < 0.6
    assert {frame.value[2] for frame in live} == {2} and {frame.value[2] for frame in backlog} == {3}
    observed = decode(backlog).reports.rows.columns["observed_at"]
    assert all(frame.received_at > at for frame, at in zip(backlog, observed.tolist(), strict=True))


def test_duplicates_and_broken_frames_are_as_many_as_the_tally_says():
    transit = start_transit(Trouble(duplicated=0.1, broken=0.1), 5)
    frames = [frame for chunk in simulate(SPEC) for frame in transit.carry(chunk).live]
    decoded = decode(frames)
    assert len(frames) == transit.tally["reports"] + transit.tally["duplicated"]
    refused = [evidence for evidence in decoded.evidence if evidence.outcome == "rejected"]
    broken_twice = transit.tally["broken"] * 0.4
    assert transit.tally["broken"] <= len(refused) <= transit.tally["broken"] + broken_twice
    seen = Counter(frame.value for frame in frames)
    assert sum(count - 1 for count in seen.values()) == transit.tally["duplicated"] > 50


def test_late_frames_change_the_order_and_not_the_content():
    calm, late = start_transit(Trouble(), 5), start_transit(Trouble(late=0.1), 5)
    for chunk in simulate(SPEC):
        straight, mixed = calm.carry(chunk).live, late.carry(chunk).live
        assert sorted(straight) == sorted(mixed)
    assert late.tally["late"] > 0


def test_messages_carry_protocol_receive_time_and_gateway():
    chunk = next(iter(simulate(SPEC)))
    key, value, headers, _ = next(messages(encode(chunk, 2)))
    assert key == chunk.vin[0] and value[:2] == b"##"
    received = chunk.rows.columns["received_at"][0]
    expected = {"protocol": b"gbt32960", "received_at": b"%d" % received, "gateway": b"simulator"}
    assert dict(headers) == expected


def test_demo_has_a_history_up_to_now_then_a_fire_that_alarms_while_it_is_live():
    now = 1_795_000_000 * US
    demo = demo_fleet(7, now, vehicles=30, history_days=0.4)
    history = [frame for out in demo.history() for frame in (*out.live, *out.backlog)]
    newest = decode(history).reports.rows.columns["observed_at"].max()
    assert now - 600 * US < newest <= now
    alarms = 0
    for second in range(45):
        frames = demo.live(now + second * US).live
        alarms += int((decode(frames).reports.rows.columns["alarm_level"] == 3).sum()) if frames else 0
    assert alarms >= 3
    assert {"leak", "insulation", "thermal"} <= {fault["kind"] for fault in demo.truth}
    assert len(demo.attributes) == 30


def test_markers_reach_the_wire_as_markers():
    spec = replace(SPEC, trouble=Trouble(markers=0.2))
    marked = sum((chunk.rows.lists["cells_mv"].values >= 0xFFFE).sum() for chunk in simulate(spec))
    reports = sum(len(chunk) for chunk in simulate(spec))
    assert marked == pytest.approx(0.2 * reports, rel=0.2)
