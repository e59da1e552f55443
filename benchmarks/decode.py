"""How many GB/T 32960 frames a second become columns on one core, beside a plain `struct` decoder?

Frames carry vehicle, motor, position, extremes, alarm, 96 cells and 24 probes, as a real one does. The two
decoders take turns in one process and one thread; rates are per second of CPU time, so that other work on the
machine does not count; the ratio is that of the medians. Run: python benchmarks/decode.py
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import struct_decoder
from telltale.decode.gbt32960 import decode
from telltale.decode.gbt32960.encode import encode_frame
from telltale.decode.gbt32960.fields import Field
from telltale.decode.gbt32960.frames import xor_rows
from telltale.decode.gbt32960.layout import Item, walk
from telltale.records import Values

FRAMES = 10_000
ROUNDS = 9
Array = np.ndarray


def template(cells: int, probes: int, motors: int = 1) -> bytes:
    """Return a report frame of this layout."""
    block = (1).to_bytes(1) + bytes(8) + bytes([cells]) + bytes(2 * cells)
    unit = (
        bytes.fromhex("1a030e091a35")
        + b"\x01"
        + bytes(20)
        + b"\x02"
        + bytes([motors])
        + bytes(12 * motors)
        + b"\x05"
        + bytes(9)
        + b"\x06"
        + bytes(14)
        + b"\x07"
        + bytes(9)
        + b"\x08\x01"
        + block
        + b"\x09\x01\x01"
        + probes.to_bytes(2)
        + bytes(probes)
    )
    return encode_frame("L0TTE5T15RA000101", 2, unit)


def fleet(frame: bytes, count: int, seed: int, markers: float = 0.0) -> list[bytes]:
    """Return `count` frames of one layout with legal random values, a share of them markers."""
    dice = np.random.default_rng(seed)
    block = np.tile(np.frombuffer(frame, np.uint8), (count, 1))
    for part in walk(2016, frame).parts:
        fill(block, part.body, dice, markers)
    block[:, 29] = np.arange(count) % 60
    block[:, 28] = np.arange(count) // 60 % 60
    block[:, 18:21] = dice.integers(48, 58, (count, 3))
    block[:, -1] = xor_rows(block[:, 2:-1])
    return [row.tobytes() for row in block]


def fill(block: Array, item: Item, dice: np.random.Generator, markers: float) -> None:
    for spec, offset in item.fields:
        put(block, spec, offset, dice, markers)
    for placed in item.lists:
        for inner in placed.items:
            fill(block, inner, dice, markers)
        offset = placed.offset
        for _ in range(0 if placed.items else placed.length):
            for spec in placed.listing.items:
                assert isinstance(spec, Field)
                put(block, spec, offset, dice, markers)
                offset += spec.width


def put(block: Array, spec: Field, offset: int, dice: np.random.Generator, markers: float) -> None:
    if spec.structural:
        return
    low, high = (3_200, 3_700) if spec.column == "cells_mv" else (spec.raw_min, spec.raw_max)
    raw = dice.integers(low, high, len(block), endpoint=True)
    if spec.marked and markers:
        raw[dice.random(len(block)) < markers] = spec.invalid
    block[:, offset : offset + spec.width] = raw.astype(f">u{spec.width}")[:, None].view(np.uint8)


def with_struct(values: list[bytes]) -> int:
    return len([struct_decoder.decode(frame) for frame in values])


def with_columns(values: list[bytes]) -> int:
    return len(decode(Values(values, np.zeros(len(values), np.int64))).reports)


def rates(frames: list[bytes], ways: dict[str, tuple[Callable[[list[bytes]], int], list[bytes]]]) -> None:
    """Print frames a second of each way, taking turns: median and range."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (way, values) in ways.items():
            began = time.process_time()
            assert way(values) == len(frames)
            found[name].append(len(frames) / (time.process_time() - began))
    base = statistics.median(found["struct"])
    for name, rate in found.items():
        middle = statistics.median(rate)
        spread = f"{min(rate):>9,.0f} .. {max(rate):>9,.0f}"
        print(f"  {name:<10} {middle:>9,.0f} frames/s ({spread})  {middle / base:5.1f} x struct")


def agree(frames: list[bytes]) -> None:
    """Refuse to compare decoders that do not give the same values."""
    reports = decode(Values(frames, np.zeros(len(frames), np.int64))).reports
    for row, frame in zip(reports.rows.columns, frames, strict=True):
        vehicle = struct_decoder.decode(frame)[3]
        assert isinstance(vehicle, tuple)
        speed = np.nan if vehicle[3] is None else np.float32(vehicle[3])
        assert row["speed_kmh"] == speed or np.isnan(speed)


def main() -> None:
    """Run every case."""
    real = fleet(template(96, 24), FRAMES, 1)
    mixed = [
        f for at in range(10) for f in fleet(template(80 + 4 * at, 16 + at, 1 + at % 2), FRAMES // 10, at)
    ]
    order = np.random.default_rng(3).permutation(FRAMES)
    mixed = [mixed[at] for at in order]
    dirty = fleet(template(96, 24), FRAMES, 2, markers=0.01)
    cases = {
        "96 cells, 24 probes, one layout": real,
        "ten layouts, shuffled": mixed,
        "1 % markers in every field": dirty,
    }
    for title, frames in cases.items():
        agree(frames[:200])
        glued = [b"".join(frames[at : at + 50]) for at in range(0, len(frames), 50)]
        print(f"{title}: {len(frames)} frames of about {len(frames[0])} bytes, {ROUNDS} rounds")
        columns, plain = with_columns, with_struct
        rates(
            frames, {"struct": (plain, frames), "columns": (columns, frames), "50 a value": (columns, glued)}
        )


if __name__ == "__main__":
    main()
