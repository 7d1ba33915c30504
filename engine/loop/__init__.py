"""The engine: its thread, and what it does from its start to its end.

`thread` is the door; `worker` claims an item, runs it, records the outcome, again; `boundary` is
the step boundary, where `requests` take effect, with `headmoves` (skip, rollback), `saving`
(checkpoints, versions), `prompting` and `noroom` as its acts; `reporting` and `monitoring` tell
and measure; `recovery` comes before the first step; `keeper` and its `chores` run beside it.
"""
