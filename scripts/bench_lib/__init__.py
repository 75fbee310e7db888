"""What scripts/bench measures with. Python's standard library is all that it needs."""
