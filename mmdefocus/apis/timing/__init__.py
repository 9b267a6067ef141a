"""Time and memory of predictions."""
