"""What a person should know now, in one line each: rules over plain figures, and who watches them.

`hint` says what a hint is and which rules there are; `loss`, `surroundings` and `hosts` are the
rules, pure functions; `tail` reads what they need of the store; `watch` keeps what stands from one
look to the next. Computed on a thread of the keeper, never on that of the engine. No torch, no
numpy.
"""
