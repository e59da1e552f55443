"""The safety lane inside ingest: what it asks the database about, and how often."""

import pytest

from telltale.ingest.safety import ASK_AGAIN_MOST_US, ASK_AGAIN_US, Judged, SafetyLane
from telltale.rules import Verdict

pytestmark = pytest.mark.unit


def test_a_vehicle_never_seen_well_is_asked_about_again_but_ever_less_often() -> None:
    lane, judged, now_us, asked_at = SafetyLane(), Judged(Verdict(states={}, unproven=(7,))), 0, []
    for now_us in range(0, 40 * ASK_AGAIN_US, ASK_AGAIN_US):
        if ask := lane.to_ask(judged, now_us):
            lane.asked(ask, now_us)
            asked_at.append(now_us // ASK_AGAIN_US)
    assert asked_at == [0, 1, 3, 7, 15, 31]
    lane.asked([7] * 60, now_us)
    assert lane.to_ask(judged, now_us + ASK_AGAIN_MOST_US) == [7]
