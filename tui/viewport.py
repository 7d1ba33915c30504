"""Which steps the curves show: following the newest, or held where one looks. Pure."""

from __future__ import annotations

import math

WINDOWS = (0, 1000, 300, 100)
"""Steps of the windows that the key cycles through; 0 is all of them."""
SMALLEST = 10


class Viewport:
    """`window` steps, 0 for all. While it follows, the right edge is at the newest step; held, it
    is `right`, whatever comes."""

    def __init__(self) -> None:
        self.window = 0
        self.following = True
        self.right: float | None = None

    def range(self, first: float, last: float) -> tuple[float, float]:
        """First and last step in view, of a history from `first` to `last`. While it follows, the
        end moves in jumps of an eighth of the range: between them only the newest columns change
        on the screen."""
        if not self.following and self.right is not None:
            length = float(self.window) if self.window else self.right - first + 1
            return self.right - length + 1, self.right
        length = float(self.window) if self.window else max(SMALLEST, last - first + 1)
        jump = max(1.0, 2.0 ** math.floor(math.log2(max(1.0, length / 8))))
        right = first + math.ceil((last - first + 1) / jump) * jump - 1
        right = max(right, first + SMALLEST - 1)
        # Before the first step there is nothing: a short history is not drawn into a corner.
        return (max(first, right - length + 1) if self.window else first), right

    def narrower(self) -> None:
        """The next smaller window, or all."""
        smaller = [window for window in WINDOWS if 0 < window < (self.window or math.inf)]
        self.window = smaller[0] if smaller else 0

    def hold(self, x0: float, x1: float) -> None:
        """Show these steps and stay there."""
        self.following = False
        self.window, self.right = max(SMALLEST, round(x1 - x0 + 1)), x1

    def follow(self) -> None:
        self.following, self.right = True, None

    def pan(self, quarters: int, first: float, last: float) -> None:
        """Quarters of the range to the right; a quarter of it stays on the history."""
        x0, x1 = self.range(first, last)
        shift = quarters * max(1.0, (x1 - x0 + 1) / 4)
        right = min(max(x1 + shift, first + (x1 - x0) / 4), max(x1 if quarters < 0 else 0, last))
        self.hold(right - (x1 - x0), right)

    def zoom(self, factor: float, first: float, last: float, about: float | None = None) -> None:
        """`factor` times as many steps, with step `about` where it is (None: the right edge). As
        many as there are, or more, are all, and follow."""
        x0, x1 = self.range(first, last)
        length = max(SMALLEST, round((x1 - x0 + 1) * factor))
        if length >= last - first + 1:
            self.window = 0
            self.follow()
        elif about is None or (self.following and about >= last):
            self.window = length
        else:
            share = (about - x0) / (x1 - x0 + 1)
            left = round(about - share * length)
            self.hold(left, left + length - 1)
