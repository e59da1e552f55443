"""The migrations on real TimescaleDB code: hypertables, compression, late rows, retention."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from tests.servers.postgres import missing

pytestmark = pytest.mark.timescaledb
HERE = Path(__file__).parent / "timescaledb"


def test_compressed_readings_equal_raw_ones_and_still_refuse_repeats(tmp_path: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        missing("TimescaleDB in WebAssembly needs node and npm")
    for name in ("package.json", "package-lock.json", "check.mjs"):
        shutil.copy(HERE / name, tmp_path)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=tmp_path, check=True)
    migrations = str(resources.files("telltale.store") / "migrations")
    done = subprocess.run(
        ["node", "check.mjs", migrations], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["hypertables"] == seen["policies"] >= 2
    assert (seen["rows"], seen["compressed"]) == (7503, 4)
    assert seen["difference"] == 0
    assert seen["bytes_after"] < seen["bytes_before"]
    assert (seen["again"], seen["late"]) == ("23505", 1)
    assert (seen["dropped"], seen["oldest"][:10]) == (1, "2026-01-08")
