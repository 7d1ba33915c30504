"""Several processes that train one item: launched, spoken with and ended by the engine thread.

`plan` says how many and how; `launch` starts torch elastic's agent (`agent`), which starts the
ranks (`rank`), and ends all of them; `link` carries words between the engine thread and rank 0
(`words`, `service`). `held` is the live model as the worker sees it, in this process or at the
ranks (`there`). `join` is a further host's side.

The engine alone publishes and registers a checkpoint: rank 0 writes into a temporary folder that
it was given for that, and no rank knows the database.
"""
