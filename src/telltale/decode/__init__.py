"""Decoders: bytes of one protocol to columns, gathered in one table."""
