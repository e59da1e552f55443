"""The command line as an operator meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import telltale

pytestmark = pytest.mark.unit


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "telltale", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )


def test_version_is_the_packages() -> None:
    assert command("version").stdout.strip() == telltale.__version__


def test_an_unknown_verb_is_named() -> None:
    answer = command("fly")
    assert answer.returncode == 2
    assert "fly" in answer.stderr
