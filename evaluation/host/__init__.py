"""Evaluation on another machine: the worker that runs there, its channel, and shipping weights.

`evaluate.evaluate_on` is the way in. What runs on the host stands in `shipped` and imports
nothing of this program but itself.
"""
