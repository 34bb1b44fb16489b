"""Memorization in language and vision-language models: seven papers, one workflow, one library."""

__version__ = "0.1.0"
