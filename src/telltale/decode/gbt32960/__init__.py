"""GB/T 32960.3, editions 2016 and 2025: bytes to columns."""

from telltale.decode.gbt32960.decoder import GBT32960, decode

__all__ = ["GBT32960", "decode"]
