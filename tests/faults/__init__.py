"""Faults, injected by a seed wherever Python code of a tick runs; see `python -m tests.faults --help`."""
