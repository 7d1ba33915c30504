"""Floor 2: skills and their generators, held-out sets, scorers, and what their results say."""
