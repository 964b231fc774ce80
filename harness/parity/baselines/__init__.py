"""Blessed captures: where they are kept, how they are compared, how they are blessed."""
