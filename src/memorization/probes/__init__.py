"""Measuring functions `(model, step, ...) -> tidy rows`."""
