"""Methods a user takes home."""
