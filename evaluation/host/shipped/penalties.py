"""Penalties on tokens that depend on what a row said so far (formats F16).

`think` keeps an answer from opening with a thinking tag: the tags' scores are lowered by
`penalty`, times a factor for the first tokens. `after_stop` ends an answer that said its stop
sign: from then on every token but the ends is lowered by base * rate**n, n counting the tokens
since. Both read their state from the row itself, so a batch is as many rows alone.
"""

from __future__ import annotations

from typing import Any

from evaluation.host.shipped.frames import Trouble

MOST = 1e4
"""The largest penalty: enough in every dtype, and no infinity."""
THINK_PENALTY = 80.0
STOP_BASE, STOP_RATE = 5.0, 2.0
"""The older system's; its profile emoji_think had 100 and 10, and a reward of 50 for an end."""
THINK_SCHEDULE = ((4, 8.0), (4, 2.0), (4, 1.5))
"""(tokens, factor) from an answer's beginning on; 1 after them."""


def processors(config: dict[str, Any], tokenizer: Any, prompt: int, ends: list[int]) -> list[Any]:
    """The logits processors of `config`, {think{texts, penalty, schedule}, after_stop{texts, base,
    rate, reward}}, for a batch whose prompts take the first `prompt` columns. Raises Trouble."""
    unknown = set(config) - {"think", "after_stop"}
    if unknown:
        raise Trouble("config", f"unknown penalties: {', '.join(sorted(unknown))}")
    found: list[Any] = []
    try:
        if think := config.get("think"):
            schedule = [(int(n), float(f)) for n, f in think.get("schedule", THINK_SCHEDULE)]
            ids = _single(tokenizer, think["texts"])
            penalty = float(think.get("penalty", THINK_PENALTY))
            found.append(Think(ids, penalty, schedule, prompt))
        if stop := config.get("after_stop"):
            signs = [str(text) for text in stop["texts"] if text]
            base, rate = float(stop.get("base", STOP_BASE)), float(stop.get("rate", STOP_RATE))
            amounts = base, rate, float(stop.get("reward", 0))
            found.append(AfterStop(signs, amounts, tokenizer, prompt, ends))
    except (KeyError, TypeError, ValueError) as error:
        raise Trouble("config", f"penalties make no sense: {error!r}") from None
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError(f"{text!r} has no token")
    return ids


def _single(tokenizer: Any, texts: list[str]) -> list[int]:
    """The first token of each text: what opens with it is what is penalised."""
    return sorted({_ids(tokenizer, text)[0] for text in texts})


class Think:
    """Lowers the scores of tokens [B, V] by position in the answer."""

    def __init__(
        self, ids: list[int], penalty: float, schedule: list[tuple[int, float]], prompt: int
    ) -> None:
        self.ids, self.penalty, self.schedule, self.prompt = ids, penalty, schedule, prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        at, factor = input_ids.shape[1] - self.prompt, 1.0
        for count, times in self.schedule:
            if at < count:
                factor = times
                break
            at -= count
        scores = scores.clone()
        scores[:, self.ids] -= min(self.penalty * factor, MOST)
        return scores


class AfterStop:
    """Ends each row that said a stop sign, by itself; the ends get `reward` in its place.

    A sign is looked for in the text: a tokenizer may write it in several ways. One object serves
    one batch, whose rows keep their places.
    """

    def __init__(
        self,
        signs: list[str],
        amounts: tuple[float, float, float],
        tokenizer: Any,
        prompt: int,
        ends: list[int],
    ) -> None:
        self.signs, self.tokenizer, self.prompt, self.ends = signs, tokenizer, prompt, ends
        self.base, self.rate, self.reward = amounts
        # Each token of a sign has a byte of it at least; one before it may hold its beginning.
        self._tail = max(len(sign.encode()) for sign in signs) + 1
        self._said: list[int | None] = []
        """Per row the length of the answer at its first stop sign."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        answers = input_ids[:, self.prompt :]
        length = answers.shape[1]
        if not self._said:
            self._said = [None] * answers.shape[0]
        for row, tail in enumerate(answers[:, -self._tail :].tolist() if length else ()):
            if self._said[row] is None:
                text = self.tokenizer.decode(tail)
                if any(sign in text for sign in self.signs):
                    self._said[row] = length
        if all(at is None for at in self._said):
            return scores
        scores = scores.clone()
        ends = [token for token in self.ends if token < scores.shape[1]]
        for row, at in enumerate(self._said):
            if at is not None:
                spared = scores[row, ends] + self.reward
                scores[row] -= self._amount(length - at)
                scores[row, ends] = spared
        return scores

    def _amount(self, count: int) -> float:
        try:
            return float(min(self.base * self.rate**count, MOST))
        except OverflowError:
            return MOST
