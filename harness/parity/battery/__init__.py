"""The battery: scenarios that use every feature of the engine, and scripts that are drawn at random."""
