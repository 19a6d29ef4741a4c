"""What every operation means, in plain array code, one file for each family of operations."""
