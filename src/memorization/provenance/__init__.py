"""Where code, data and numbers came from."""
