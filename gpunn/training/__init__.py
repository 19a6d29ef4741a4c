"""Training: batches, the step, the loop around it, and what watches it."""
