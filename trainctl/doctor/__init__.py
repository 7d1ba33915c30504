"""The checkers of `trainctl doctor`, one purpose each. They look and change nothing, need no
engine, and do not disturb one that runs."""
