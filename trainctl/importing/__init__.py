"""Taking over what an older system left: its settings, queue, held-out sets and weights."""
