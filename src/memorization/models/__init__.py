"""Models built from a spec."""
