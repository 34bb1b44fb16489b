"""Data sets made by rule from a seed, and real text."""
