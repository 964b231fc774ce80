"""Proofs that two ways of computing give the same bits, and measurements of how far apart they are."""
