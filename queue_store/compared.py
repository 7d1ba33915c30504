"""What a validation loss is compared with: the mean training loss of so many steps before it."""

from __future__ import annotations

MOST, LEAST, SHARE = 100, 10, 10
FEWEST = 20
"""Below so many steps loss falls so fast that any mean is that of another model."""


def steps_before(step: int) -> int:
    """How many steps up to a validation at `step`: a tenth of all so far, for what was long before
    tells of a model that had learned less; 0 where there is nothing to compare with yet."""
    return 0 if step < FEWEST else max(LEAST, min(MOST, step // SHARE))
