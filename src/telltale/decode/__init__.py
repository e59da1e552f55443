"""Decoders: bytes of one protocol to columns, gathered in one table."""

from __future__ import annotations

from typing import Final, Protocol

from telltale.decode.gbt32960 import GBT32960
from telltale.decode.json_reading import JSON
from telltale.records import Decoded, Values


class Decoder(Protocol):
    """What ingest asks of a protocol: whole batches to columns, never an exception for bad input."""

    @property
    def protocol(self) -> str:
        """Return the name gateways send in the `protocol` header."""

    def decode(self, values: Values, *, current_sign: int = -1, position_decimals: int = 2) -> Decoded:
        """Return reports, session events, control counts and evidence of everything in these values."""

    def raw_frame(self, value: bytes, index: int) -> bytes:
        """Return the original bytes of one frame or reading of a value, by its number as decoded."""


DECODERS: Final[tuple[Decoder, ...]] = (GBT32960, JSON)


def decoder_for(protocol: str) -> Decoder | None:
    """Return the decoder of a protocol, or None when there is none."""
    return next((decoder for decoder in DECODERS if decoder.protocol == protocol), None)
