"""telltale: vehicle telemetry in exactly once, failures judged early, alerts a dealer can act on."""

__version__ = "0.1.0"
