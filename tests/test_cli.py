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


def test_a_setting_that_does_not_fit_is_named_with_what_was_given() -> None:
    answer = command("api", TELLTALE_HTTP_PORT="http", TELLTALE_LANGUAGE="fr")
    assert answer.returncode == 1
    assert "TELLTALE_HTTP_PORT" in answer.stderr
    assert "got 'http'" in answer.stderr
    assert "TELLTALE_LANGUAGE" in answer.stderr


def test_decode_of_something_that_is_not_hex_is_one_line() -> None:
    answer = command("decode", "zz")
    assert answer.returncode == 1
    assert answer.stderr.startswith("telltale: decode: expected hex digits, got 'zz'")
    assert answer.stderr.count("\n") == 1


def test_a_database_that_does_not_answer_is_one_line_with_what_to_do() -> None:
    answer = command("migrate", TELLTALE_DATABASE="postgresql://x@127.0.0.1:1/x")
    assert answer.returncode == 1
    assert answer.stderr.endswith("; is the server running, and is TELLTALE_DATABASE right?\n")
    assert answer.stderr.count("\n") == 1
