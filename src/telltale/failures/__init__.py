"""Failure modes: one file each, gathered in one tuple."""
