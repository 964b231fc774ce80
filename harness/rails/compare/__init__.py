"""Two revisions compared: outputs first, then times."""
