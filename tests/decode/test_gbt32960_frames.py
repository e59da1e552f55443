"""Finding frames in values: glued, cut, corrupt, and whatever the length fields claim."""

import random
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telltale.decode.gbt32960.digest import digest
from telltale.decode.gbt32960.encode import encode_frame
from telltale.decode.gbt32960.frames import Span, scan, split
from telltale.decode.gbt32960.times import NO_TIME, stamps_of, times

pytestmark = pytest.mark.unit
VIN = "L0TTE5T16RA000401"
HEARTBEAT = bytes.fromhex("232307fe4c30545445355431365241303030343031010000b1")


def pieces(seed: int) -> list[bytes]:
    """Return frames, cut frames, corrupt frames and noise in random order."""
    dice = random.Random(seed)
    found = []
    for _ in range(dice.randint(1, 8)):
        frame = encode_frame(VIN, 2, dice.randbytes(dice.randint(0, 40)))
        corrupt = bytearray(frame)
        corrupt[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
        noise = [b"#", b"##", b"$$", dice.randbytes(dice.randint(0, 30)), frame[: dice.randrange(25)]]
        found.append(dice.choice([frame, frame, frame, bytes(corrupt), *noise]))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_arrays_find_the_frames_that_a_byte_by_byte_scan_finds(seeds: list[int]) -> None:
    values = [b"".join(pieces(seed)) for seed in seeds]
    frames = split(values)
    begins = np.cumsum([0, *map(len, values)])
    for at, value in enumerate(values):
        mine = frames.record == at
        start = frames.start[mine] - begins[at]
        spans = [Span(int(a), int(a + b)) for a, b in zip(start, frames.size[mine], strict=True)]
        assert spans == list(scan(value).frames)
        kept = sum(span.end - span.start for span in spans)
        kept += sum(len(e.raw) for e in frames.rejected if e.record == at)
        assert kept == len(value)


def test_stray_hash_before_a_frame_does_not_lose_it() -> None:
    frames = split([b"#" + HEARTBEAT])
    assert frames.start.tolist() == [1]
    assert [e.raw for e in frames.rejected] == [b"#"]


def test_corrupt_length_does_not_swallow_the_frames_behind_it() -> None:
    broken = bytearray(HEARTBEAT)
    broken[23] = 30
    frames = split([bytes(broken) + HEARTBEAT * 2])
    assert len(frames) == 2
    assert [(e.reason, e.raw) for e in frames.rejected] == [("TRUNCATED", bytes(broken))]


def test_frames_and_rejected_runs_are_numbered_in_order() -> None:
    frames = split([HEARTBEAT + b"noise" + HEARTBEAT, HEARTBEAT])
    assert list(zip(frames.record.tolist(), frames.index.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 0)]
    assert [(e.record, e.frame) for e in frames.rejected] == [(0, 1)]


def test_many_frames_in_one_value_are_all_found() -> None:
    frames = split([HEARTBEAT * 1000, HEARTBEAT])
    assert len(frames) == 1001
    assert frames.index[:1000].tolist() == list(range(1000))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=6, max_size=6))
def test_time_stamp_is_the_calendar_date_or_none(stamp: bytes) -> None:
    zone = timezone(timedelta(hours=8))
    (got,) = times(np.frombuffer(stamp, np.uint8).reshape(1, 6)).tolist()
    year, month, day, hour, minute, second = stamp
    try:
        moment = datetime(2000 + year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        assert got == NO_TIME
        return
    assert got == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert stamps_of(np.array([got])).tolist() == [list(stamp)]


def test_every_day_of_the_wires_calendar_is_right() -> None:
    days = np.arange(np.datetime64("2000-01-01"), np.datetime64("2256-01-01"))
    moments = days.astype("datetime64[us]").astype(np.int64) - 8 * 3_600_000_000
    stamps = stamps_of(moments)
    assert (times(stamps.astype(np.uint8)) == moments).all()


def test_digest_is_the_same_on_every_machine_and_in_every_release() -> None:
    assert digest(b"") == DIGEST_OF_NOTHING
    assert digest(bytes(range(40))) == DIGEST_OF_FORTY


def test_digest_tells_zero_padding_apart() -> None:
    assert len({digest(bytes(size)) for size in range(64)}) == 64


DIGEST_OF_NOTHING = 5197578548964807871
DIGEST_OF_FORTY = 9027509480831449238
