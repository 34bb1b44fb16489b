"""One training loop for every run of every paper."""
