"""The reference: every operation in simple array code, one file for each family of operations."""
