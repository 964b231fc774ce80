"""Proofs that two ways of computing make the same bits, or how near they are."""
