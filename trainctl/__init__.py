"""Floor 4: the command line and the start of the daemon. Never imports torch itself."""

__version__ = "0.1.0"
