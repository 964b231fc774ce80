"""Times of a tick and of the bare decoder."""
