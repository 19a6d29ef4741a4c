"""NumPy on the CPU: the operations of `reference/` without allocations; steps are recorded and shared among threads."""
