"""Floor 2: skills with their generators and scorers, and the held-out sets."""
