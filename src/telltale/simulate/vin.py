"""Synthetic vehicle identification numbers: maker L0T, which is nobody, and a valid check digit."""

from __future__ import annotations

import zlib

from telltale.errors import SettingsError

# ISO 3779 / GB 16735: letters to digits, weight by place; place 9 is the check digit.
VALUES = dict(
    zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "012345678912345678123457923456789"), strict=True)
)
ALPHABET = "".join(VALUES)
WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
MODEL_YEARS = "ABCDEFGHJKLMNPRSTVWXY123456789"  # A = 2010, repeats after 30 years
PREFIX = "L0T"


def check_digit(vin: str) -> str:
    """Return what place 9 of this 17-character VIN must be."""
    rest = sum(weight * VALUES[char] for weight, char in zip(WEIGHTS, vin, strict=True)) % 11
    return "X" if rest == 10 else str(rest)


def is_valid(vin: str) -> bool:
    """Tell whether this is 17 characters of the VIN alphabet with the right check digit."""
    return len(vin) == 17 and all(char in VALUES for char in vin) and vin[8] == check_digit(vin)


def synthetic_vin(
    serial: int, *, series: str = "EVSMT", year: int = 2024, plant: str = "T", prefix: str = PREFIX
) -> str:
    """Return the VIN of this serial number (0..999,999) of a five-character series."""
    body = f"{prefix}{series}0{MODEL_YEARS[(year - 2010) % 30]}{plant}{serial:06d}"
    return body[:8] + check_digit(body) + body[9:]


def vin_of_name(name: str, *, prefix: str = PREFIX) -> str:
    """Return the VIN that always belongs to this name: a recorded car's, say.

    Raises SettingsError when the prefix is not three characters of the VIN alphabet.
    """
    if len(prefix) != 3 or not set(prefix) <= set(ALPHABET):
        raise SettingsError(f"VIN prefix {prefix!r}: expected three of 0-9 and A-Z without I, O and Q")
    rest, serial = divmod(zlib.crc32(name.encode()), 1_000_000)
    letters = "".join(
        ALPHABET[rest // step % len(ALPHABET)] for step in (len(ALPHABET) ** 2, len(ALPHABET), 1)
    )
    return synthetic_vin(serial, series=f"RE{letters}", year=2019, prefix=prefix)
