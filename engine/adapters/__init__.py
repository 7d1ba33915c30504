"""Adapters made into full models. `merging` is the act as whoever asks calls it; `write` does the
work in a child process; `deltas` says what an adapter adds to which tensor of its base."""
