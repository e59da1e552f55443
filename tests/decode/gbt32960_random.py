"""Random reports drawn from the field tables: legal values, markers, odd counts, any section order."""

import random

from telltale.decode.gbt32960.encode import encode_frame
from telltale.decode.gbt32960.fields import SECTIONS, Field, Listing

VINS = ("L0TTE5T15RA000101", "L0TTE5T17RA000102", "shortvin", "")


def raw_value(dice: random.Random, spec: Field) -> int:
    if spec.name == "no":
        return dice.randint(0, 4)
    kind = dice.random()
    if kind < 0.80:
        return dice.randint(spec.raw_min, spec.raw_max)
    if kind < 0.88:
        return spec.invalid
    if kind < 0.94:
        return spec.invalid - 1
    return dice.randint(0, spec.invalid)


def element(dice: random.Random, spec: Field | Listing) -> bytes:
    if isinstance(spec, Field):
        return raw_value(dice, spec).to_bytes(spec.width)
    counter = spec.count
    if counter.marked and dice.random() < 0.05:
        return dice.choice([counter.invalid, counter.invalid - 1]).to_bytes(counter.width)
    count = dice.choice([0, 1, 1, 2, 3, 7])
    items = b"".join(element(dice, item) for _ in range(count) for item in spec.items)
    return count.to_bytes(counter.width) + items


def section(dice: random.Random, edition: int, kind: int) -> bytes:
    return bytes([kind]) + b"".join(element(dice, spec) for spec in SECTIONS[edition][kind].elements)


def time(dice: random.Random) -> bytes:
    return dice.randbytes(6) if dice.random() < 0.1 else stamp(dice)


def stamp(dice: random.Random) -> bytes:
    top = (99, 12, 28, 23, 59, 59)
    return bytes(dice.randint(1 if at in (1, 2) else 0, limit) for at, limit in enumerate(top))


def report(dice: random.Random, edition: int) -> bytes:
    kinds = [kind for kind in SECTIONS[edition] if kind < 0x80] + [0x80, 0x83, 0xFE]
    if edition == 2025:
        kinds.append(0xFF)
    chosen = dice.sample(kinds, dice.randint(1, 6))
    if dice.random() < 0.1:
        chosen.append(dice.choice(chosen))
    unit = time(dice) + b"".join(section(dice, edition, kind) for kind in chosen)
    if dice.random() < 0.1:
        unit += bytes([dice.choice([0x0A, 0x2F, 0x40, 0x7F])]) + dice.randbytes(3)
    elif dice.random() < 0.1:
        unit = unit[: dice.randint(7, len(unit))]
    return encode_frame(dice.choice(VINS), dice.choice([2, 3]), unit, edition=edition)


def reports(seed: int, count: int) -> list[bytes]:
    """Return `count` report frames; several share one layout, as in a fleet."""
    dice = random.Random(seed)
    frames: list[bytes] = []
    while len(frames) < count:
        edition = dice.choice([2016, 2016, 2025])
        first = report(dice, edition)
        frames.append(first)
        frames += [redrawn(dice, first, edition) for _ in range(dice.choice([0, 0, 2, 5]))]
    return frames[:count]


def redrawn(dice: random.Random, frame: bytes, edition: int) -> bytes:
    """Return the frame with one byte of its data unit changed: usually the same layout, other values."""
    unit = bytearray(frame[24:-1])
    unit[dice.randrange(len(unit))] = dice.choice([0, 1, 0x7F, 0xFE, 0xFF, dice.randrange(256)])
    return encode_frame(dice.choice(VINS), 2, bytes(unit), edition=edition)


def clean_reports(seed: int, count: int, edition: int) -> list[bytes]:
    """Return reports that columns hold whole: sections in order and once, only full lists, no abnormal."""
    dice = random.Random(seed)
    stored = [kind for kind, found in SECTIONS[edition].items() if found.table == "report"]
    frames = []
    for _ in range(count):
        kinds = sorted(dice.sample(stored, dice.randint(1, len(stored))))
        unit = stamp(dice) + b"".join(bytes([kind]) + clean(dice, edition, kind) for kind in kinds)
        if dice.random() < 0.3:
            unit += section(dice, edition, 0x83)
        frames.append(encode_frame(VINS[0], 2, unit, edition=edition))
    return frames


def clean(dice: random.Random, edition: int, kind: int) -> bytes:
    return b"".join(clean_element(dice, spec, at) for at, spec in enumerate(SECTIONS[edition][kind].elements))


def clean_element(dice: random.Random, spec: Field | Listing, place: int) -> bytes:
    if isinstance(spec, Field):
        if spec.name == "state":
            return bytes([dice.choice([0, 1, 2, 4, 6, 7])])
        missing = place and spec.marked and "deg" not in spec.name and dice.random() < 0.2
        return (spec.invalid if missing else dice.randint(spec.raw_min or 1, spec.raw_max)).to_bytes(
            spec.width
        )
    count = dice.choice([1, 1, 2, 3])
    items = b""
    for number in range(1, count + 1):
        for at, item in enumerate(spec.items):
            numbered = isinstance(item, Field) and item.name == "no"
            items += bytes([number]) if numbered else clean_element(dice, item, at)
    return count.to_bytes(spec.count.width) + items
