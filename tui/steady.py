"""Figures that stand still while they move too little to matter.

A machine's figures are never twice the same; drawn as they are, a console would write to a slow
link all day, and the eye would be drawn to what means nothing.
"""

from __future__ import annotations


class Steady:
    """Remembers of each figure what is shown, and shows another only once it is off by more than
    `by`, or by more than a `share` of what is shown."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(
        self, name: str, value: float | None, by: float = 0.0, share: float = 0.0
    ) -> float | None:
        """The figure to show for `value`; None, what is not known, is shown at once."""
        if value is None:
            self._shown.pop(name, None)
            return None
        shown = self._shown.get(name)
        if shown is None or abs(value - shown) > max(by, share * abs(shown)):
            shown = self._shown[name] = value
        return shown
