"""From the rows of a file to packed token sequences with a mask of what trains.

The way of the data, one module a stage:

    file -- queue_store.rows.read_rows --> Row(messages | text) | BadRow(line, reason)
         -- render.Renderer (a profile, then masks.Masker over template.ChatTemplate)
                    --> text, spans of characters that train
         -- encode.Encoder (tokenizers, in its own threads) --> ids int32[n], trained bool[n]
         -- prepare: held out? over length? validation? --> rows of this item
         -- packing.tightest --> packs of at most max_length tokens
         -- mask_checks.MaskChecks --> five checks passed, or the file is refused
         -- prepared.Prepared, on disk at root/<key>/, memory-mapped
         -- order(seed, epoch), sequence(pack) --> collate.collate --> tensors of a batch

What trains of a conversation is the assistant's text and its end token, and of a `text` row
everything and the end token; the first token of a row never does. No row is ever cut.
`collate` alone imports torch, so it is not imported here.
"""

from engine.prepare.prepare import Cancelled, PrepareSettings, prepare
from engine.prepare.prepared import EpochOrder, Prepared, Sequence

__all__ = ["Cancelled", "EpochOrder", "PrepareSettings", "Prepared", "Sequence", "prepare"]
