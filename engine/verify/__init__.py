"""Versions looked at deeply: do they load, count, answer as they did, and how do two differ."""
