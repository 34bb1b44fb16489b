# Pinned public weights and data (scale `paper`). Everything else needs none.
