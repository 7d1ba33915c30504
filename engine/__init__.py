"""Floor 3: the engine thread, training, telemetry and the sessions that faces talk to.
Importing this package imports no torch: only the modules that the engine thread loads do."""
