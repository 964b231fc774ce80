"""A streaming diffusion engine for ACE-Step v1.5 and the harness that proves its optimizations change no bit."""

__version__ = "0.1.0"
