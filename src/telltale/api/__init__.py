"""HTTP: alerts, vehicles, live events and pages."""
