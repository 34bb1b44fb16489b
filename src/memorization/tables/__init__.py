"""From measurement rows to the numbers behind one figure."""
