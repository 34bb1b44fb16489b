"""From one table to one figure."""
