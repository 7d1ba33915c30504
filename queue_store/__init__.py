"""Floor 1: the home's folders, its configuration, the database, the queue, the inbox,
the journal and the metrics. Imports nothing of the other floors, and never torch."""
