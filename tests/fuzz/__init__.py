"""Mutated files of every kind: each is refused by a named error or means what it meant; `make fuzz SEED= N=`."""
