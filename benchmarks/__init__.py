"""Questions about speed and memory, one file each, and what they share: `python -m benchmarks --help`."""
