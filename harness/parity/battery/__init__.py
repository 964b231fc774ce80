"""The battery: scenarios that together use every feature of the engine, and scripts that are drawn at random."""
