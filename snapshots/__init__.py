"""Floor 2: checkpoints and versions as files on disk, their digests, and the moves of the head.
Imports queue_store only, and never torch: it must run where no model can be loaded."""
