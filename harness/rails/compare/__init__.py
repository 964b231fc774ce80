"""The comparison of two revisions: outputs first, then times."""
