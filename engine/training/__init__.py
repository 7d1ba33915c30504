"""One item trained by transformers' Trainer, and the complete training state: no queue, no face.

`run` takes an item from its cursor to its end and asks the controls (`controls`) at every step;
`trainer` is the Trainer, `model`, `optim`, `schedule`, `rng` what it holds, `live` all of it
together, `state` all of it in a folder and back, bit for bit. `items` freezes what an item trains
on, `position` says where a cursor stands. `sampler` and `examples` are the look at the model
between two steps. How it computes: `attention`, `loss_path` with `chunked_loss`, and `liger`, each
proven on the model (`trial`) before it is used. How it steps: `stepping` by the `rules` of `optim`;
in the backward pass with `parts` and `sums` of layers, and `slices` and `lookups` of embedding and
head. `folder` and `layout` are the model's folder as it is read and as others read it.
"""
