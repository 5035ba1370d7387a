"""Training: one loop for all families, and the tasks that it runs."""
