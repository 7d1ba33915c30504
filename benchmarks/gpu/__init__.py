"""What only a card shows: memory by mode and shape, tokens/s, share of the card's matrix peak.

The same code runs on a CPU with a tiny shape, so that a test keeps every line alive.
"""
