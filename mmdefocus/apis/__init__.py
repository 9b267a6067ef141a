"""Inferencers, the model index and model complexity. Import its modules one by one: each needs other packages."""
