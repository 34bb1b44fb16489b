"""Claims written before the run, joined with tables after it."""
