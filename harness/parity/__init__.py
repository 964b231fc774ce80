"""Are two runs the same? The byte comparison, and what is built on it."""
