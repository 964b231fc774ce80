"""The pictures of the documentation, made from kept reports: `python -m tests.pictures --out docs/pictures`."""
