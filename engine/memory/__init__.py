"""What a configuration takes of a device's memory: known before anything is loaded.

`profile` measures a model's own classes on fake tensors (no memory, no weights); `estimate` is
arithmetic over a profile and config.toml; `cards` says what a device has; `fitting` finds the
configurations nearby that fit. Only `profile` imports torch, in a process of its own.
"""
