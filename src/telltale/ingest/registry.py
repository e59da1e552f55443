"""Ids of vehicles and sources, and the newest time of each vehicle: memory of what the database holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.intake import NO_TIME
from telltale.records import Array, Source
from telltale.store import readings
from telltale.store.pool import Connection

_VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")


class Registry:
    """Maps VINs and sources to ids, registering what is new."""

    def __init__(self) -> None:
        self._vehicles: dict[bytes, int] = {}
        self._sources: dict[tuple[Source, str], int] = {}
        self._valid: NDArray[np.bool_] = np.ones(1024, bool)
        self._newest: NDArray[np.int64] = np.full(1024, NO_TIME, np.int64)

    async def vehicle_ids(self, db: Connection, vins: Sequence[bytes]) -> NDArray[np.int32]:
        """Return the id of each VIN; a VIN never heard of is registered."""
        if unknown := set(vins) - self._vehicles.keys():
            await self._register(db, sorted(unknown))
        return np.array([self._vehicles[vin] for vin in vins], np.int32)

    def known_vehicles(self, vins: Sequence[bytes]) -> NDArray[np.int32] | None:
        """Return the id of each VIN, or None when one has to be registered first. Safe in a thread."""
        ids = list(map(self._vehicles.get, vins))
        return None if None in ids else np.array(ids, np.int32)

    async def _register(self, db: Connection, vins: Sequence[bytes]) -> None:
        texts = {vin: vin_text(vin) for vin in vins}
        valid = {text: _VIN.fullmatch(text) is not None for text in texts.values()}
        ids = await readings.register_vehicles(db, sorted(valid.items()))
        self._grow(max(ids.values()) + 1)
        for vin, text in texts.items():
            self._valid[ids[text]] = valid[text]
            self._vehicles[vin] = ids[text]

    async def source_ids(
        self, db: Connection, sources: Sequence[tuple[Source, str]]
    ) -> Mapping[tuple[Source, str], int]:
        """Return the id of each (source, gateway); a new one is registered."""
        if unknown := [pair for pair in sources if pair not in self._sources]:
            self._sources |= await readings.register_sources(db, unknown)
        return self._sources

    def known_sources(self, sources: Sequence[tuple[Source, str]]) -> NDArray[np.int16] | None:
        """Return the ids, or None when one has to be registered first. Safe in a thread."""
        ids = [self._sources.get(pair) for pair in sources]
        return None if None in ids else np.array(ids, np.int16)

    def is_well_formed(self, vehicles: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell for each vehicle id whether its VIN is well-formed."""
        well_formed: NDArray[np.bool_] = self._valid[vehicles]
        return well_formed

    def is_newer(self, vehicles: Array, observed_at: Array) -> NDArray[np.bool_]:
        """Tell for each row whether it is newer than all this worker has stored of its vehicle."""
        newer: NDArray[np.bool_] = observed_at > self._newest[vehicles]
        return newer

    def stored(self, vehicles: Array, observed_at: Array) -> None:
        """Remember the newest times of rows that are now committed."""
        np.maximum.at(self._newest, vehicles, observed_at)

    def _grow(self, size: int) -> None:
        if size <= len(self._newest):
            return
        more = max(size, 2 * len(self._newest)) - len(self._newest)
        self._newest = np.concatenate([self._newest, np.full(more, NO_TIME, np.int64)])
        self._valid = np.concatenate([self._valid, np.ones(more, bool)])


def vin_text(vin: bytes) -> str:
    """Return the VIN as text that a database takes, whatever bytes the wire carried."""
    return vin.decode("ascii", "backslashreplace").replace("\x00", "\\x00")
