"""The machine that trains: its GPUs, memory, processor and disk, now and over the last minutes."""
