"""Models small enough for theory: simulated exactly, without data and without torch."""
