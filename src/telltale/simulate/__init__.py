"""A deterministic fleet, cell by cell: healthy, faulty and troublesome vehicles to order."""

from telltale.simulate.inject import Leak, inject_leak, inject_leak_deviation, leak_for_deviation

__all__ = ["Leak", "inject_leak", "inject_leak_deviation", "leak_for_deviation"]
