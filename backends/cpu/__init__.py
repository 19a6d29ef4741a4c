"""NumPy on the CPU: the operations of `reference/` with nothing allocated, recorded, and shared among threads."""
