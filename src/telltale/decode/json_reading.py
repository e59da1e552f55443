"""JSON readings: one or a list, to columns."""
