"""The published vectors, through the describer, the splitter and the columns."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telltale.decode.gbt32960 import decode
from telltale.decode.gbt32960.describe import describe
from telltale.decode.gbt32960.frames import scan
from telltale.records import Values

PUBLIC = Path(__file__).parents[1] / "frames" / "public.jsonl"


def vectors(path: Path, protocol: str) -> list[Any]:
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [pytest.param(v, id=v["id"]) for v in found if v["protocol"] == protocol]


def samples(protocol: str) -> list[Any]:
    folder = os.environ.get("TELLTALE_TEST_VECTORS")
    if not folder:
        reason = "set TELLTALE_TEST_VECTORS to the folder of samples.jsonl"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="samples")]
    return vectors(Path(folder) / "samples.jsonl", protocol)


def assert_holds(expected: Any, got: Any, path: str = "") -> None:
    """Hold `expected` as a subset of `got`; numbers to six decimals, lists and `quality` exactly."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert name in got, f"{path}.{name} is missing"
            assert_holds(value, got[name], f"{path}.{name}")
        if path.endswith(".quality"):
            assert set(got) == set(expected), path
    elif isinstance(expected, list):
        assert len(got) == len(expected), path
        for at, value in enumerate(expected):
            assert_holds(value, got[at], f"{path}[{at}]")
    elif isinstance(expected, float):
        assert got is not None and round(got, 6) == round(expected, 6), path
    else:
        assert got == expected, f"{path}: {got} is not {expected}"


@pytest.mark.unit
@pytest.mark.parametrize("vector", vectors(PUBLIC, "gbt32960"))
def test_frame_is_described_as_published(vector: dict[str, Any]) -> None:
    assert_holds(vector["expect"], describe(bytes.fromhex(vector["hex"])))


@pytest.mark.parametrize("vector", samples("gbt32960"))
def test_sample_frame_is_described_as_published(vector: dict[str, Any]) -> None:
    assert_holds(vector["expect"], describe(bytes.fromhex(vector["hex"])))


def split_result(value: bytes) -> dict[str, Any]:
    found = scan(value)
    frames = [describe(value[span.start : span.end]) for span in found.frames]
    covered = sum(span.end - span.start for span in found.frames)
    remaining = len(value) - found.remainder
    return {
        "frames": [{name: frame[name] for name in ("command", "vin", "time")} for frame in frames],
        "skipped_bytes": len(value) - covered - remaining,
        "remaining_bytes": remaining,
    }


@pytest.mark.unit
@pytest.mark.parametrize("vector", vectors(PUBLIC, "gbt32960.stream"))
def test_stream_is_split_as_published(vector: dict[str, Any]) -> None:
    assert split_result(bytes.fromhex(vector["hex"])) == vector["expect"]


@pytest.mark.unit
@pytest.mark.parametrize("vector", vectors(PUBLIC, "gbt32960.reassembly"))
def test_split_reports_hold_every_cell_of_the_pack(vector: dict[str, Any]) -> None:
    values = [bytes.fromhex(part) for part in vector["hex"].split()]
    rows = decode(Values(values, np.zeros(len(values), np.int64))).reports.rows
    (group,) = vector["expect"]["groups"]
    cells = rows.lists["cells_mv"].values
    assert len(cells) == group["received"] == group["cell_total"]
    assert (cells.min() / 1000, cells.max() / 1000) == (group["min_v"], group["max_v"])
    assert len(set(rows.columns["part"].tolist())) == len(values)


@pytest.mark.unit
@pytest.mark.parametrize("vector", [*vectors(PUBLIC, "gbt32960"), *vectors(PUBLIC, "gbt32960.stream")])
def test_every_published_vector_is_accounted_for(vector: dict[str, Any]) -> None:
    value = bytes.fromhex(vector["hex"])
    result = decode(Values([value], np.zeros(1, np.int64)))
    error = vector["expect"].get("error")
    kept = len(result.reports) + len(result.sessions) + int(result.control.sum())
    if error is None and vector["protocol"] == "gbt32960":
        assert (kept, result.evidence) == (1, ())
    elif error is not None:
        assert [e.reason for e in result.evidence] == [error]
        assert kept == ("partial_sections" in vector["expect"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda frame: frame + b"\0", "LENGTH_MISMATCH"),
        (lambda frame: frame[:24], "TRUNCATED"),
        (lambda frame: frame[:1], "TRUNCATED"),
        (lambda frame: b"", "TRUNCATED"),
        (lambda frame: b"#$" + frame[2:], "BAD_START"),
        (lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]), "BCC_MISMATCH"),
    ],
)
def test_first_fault_of_an_envelope_names_it(change: Any, error: str) -> None:
    frame = bytes.fromhex("232307fe4c30545445355431355241303030313031010000b7")
    assert describe(frame)["ok"]
    assert describe(change(frame)) == describe(change(frame)) | {"ok": False, "error": error}
