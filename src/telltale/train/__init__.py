"""Offline: recorded and simulated vehicles to models and reports."""
