"""Models of the home asked the held-out sets, on a host or in a process of its own here."""
