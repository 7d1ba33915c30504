"""The answer that the engine thread is giving to a prompt, as far as it is: read by any thread.

One object is put in the place of another, so nobody waits for anybody.
"""

from __future__ import annotations

from typing import Any

NOTHING: dict[str, Any] = {"answering": False, "answer": "", "tokens": 0}


class Growing:
    """The engine thread writes, sessions read."""

    def __init__(self) -> None:
        self._now: tuple[str, dict[str, Any]] = ("", NOTHING)

    def begin(self, key: str) -> None:
        """The prompt of this key is answered from now on; "" is nobody's."""
        self.grow(key, "", 0)

    def grow(self, key: str, text: str, tokens: int) -> None:
        self._now = key, {"answering": True, "answer": text, "tokens": tokens}

    def end(self) -> None:
        self._now = "", NOTHING

    def of(self, key: str) -> dict[str, Any]:
        """{answering, answer, tokens} of the prompt of that key. `answering` is False before its
        turn and after it; the answer's last characters may still change. Foreign text."""
        whose, said = self._now
        return said if key and whose == key else NOTHING
