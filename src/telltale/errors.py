"""Exceptions that cross module borders: what, where, expected, got, with the evidence as attributes."""

from __future__ import annotations


class TelltaleError(Exception):
    """Base of every error telltale raises on purpose; its text is fit for an operator's log line."""


class SettingsError(TelltaleError):
    """A setting or an operator's argument cannot be used; the text names it and says what would do."""


class WaitableError(TelltaleError):
    """A condition that may pass by itself; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class FencedError(TelltaleError):
    """Another worker holds a partition or lease this worker believed to be its own; its write was refused."""


class EncodeError(TelltaleError):
    """A value does not fit the wire field it should go into."""
