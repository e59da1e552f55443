"""Readings into buckets for a chart: extremes kept, gaps shown. Pure numpy; NaN means no value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telltale.records import CELL, CELL_ABNORMAL

Floats = NDArray[np.float64]
_GAP_STEPS: Final = 5.0  # a hole longer than so many usual steps is a gap, not a line


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows, ascending in time, grouped by bucket number; only buckets that hold a row exist."""

    numbers: NDArray[np.int64]  # ascending, each once
    first: NDArray[np.int64]  # index of each bucket's first row

    def lowest(self, values: Floats) -> Floats:
        """Return the smallest number of each bucket; NaN where it holds none."""
        return self._reduce(np.fmin, values)

    def highest(self, values: Floats) -> Floats:
        """Return the largest number of each bucket; NaN where it holds none."""
        return self._reduce(np.fmax, values)

    def median(self, values: Floats) -> Floats:
        """Return the median of each bucket's numbers; NaN where it holds none."""
        return np.array([_nanmedian(group) for group in np.split(values, self.first[1:])], np.float64)

    def _reduce(self, ufunc: np.ufunc, values: Floats) -> Floats:
        return np.asarray(ufunc.reduceat(values, self.first)) if len(self.first) else np.zeros(0)


def group(numbers: NDArray[np.int64]) -> Buckets:
    """Group rows whose bucket numbers these are, ascending."""
    first = np.flatnonzero(np.diff(numbers, prepend=-1))
    return Buckets(numbers[first], first)


def gaps(starts: Floats) -> NDArray[np.int64]:
    """Return before which buckets a line must break: holes far longer than the usual step."""
    steps = np.diff(starts)
    if len(steps) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(steps > _GAP_STEPS * np.median(steps)) + 1


def broken(values: Floats, at: NDArray[np.int64]) -> list[float | None]:
    """Return values with a null before each of these places, and null for NaN."""
    return [None if np.isnan(v) else round(float(v), 6) for v in np.insert(values, at, np.nan)]


def broken_times(starts: Floats, at: NDArray[np.int64]) -> list[float]:
    """Return the times with one more, halfway into each gap."""
    middle = (starts[at - 1] + starts[at]) / 2
    return [round(float(t), 6) for t in np.insert(starts, at, middle)]


def cells_matrix(packed: Sequence[bytes], offsets: Sequence[int], row_of: NDArray[np.int64]) -> Floats:
    """Return (instants, cells) in V from packed lists, NaN where a cell sent no value.

    packed: big-endian mV per report; offsets: index of each report's first cell within the pack;
    row_of: which instant each report belongs to (parts of one split report share an instant).
    """
    widths = [len(data) // CELL.itemsize for data in packed]
    cells = max((o + w for o, w in zip(offsets, widths, strict=True)), default=0)
    rows = int(row_of[-1]) + 1 if len(row_of) else 0
    matrix = np.full((rows, cells), np.nan)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(offsets, widths, strict=True)):
        groups.setdefault(key, []).append(index)
    for (offset, width), members in groups.items():
        raw = np.frombuffer(b"".join(packed[i] for i in members), CELL).reshape(len(members), width)
        volts = np.where(raw >= CELL_ABNORMAL, np.nan, raw / 1000.0)
        matrix[row_of[members], offset : offset + width] = volts
    return matrix


def across(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Return lowest, median and highest cell of each instant; NaN where none sent a value."""
    known = np.sum(~np.isnan(matrix), axis=1)
    rows = np.arange(len(matrix))
    ordered = np.sort(np.pad(matrix, ((0, 0), (0, 1)), constant_values=np.nan), axis=1)  # NaN last
    last = np.maximum(known - 1, 0)
    median = (ordered[rows, last // 2] + ordered[rows, known // 2]) / 2
    return ordered[:, 0], median, ordered[rows, last]


def _nanmedian(values: Floats) -> Any:
    known = values[~np.isnan(values)]
    return np.median(known) if len(known) else np.nan
