"""What a `generate` frame asks for, checked, and the words in which its results are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.model import Loaded

Json = dict[str, Any]
Send = Callable[[Json], None]
BATCH = 32
STREAM_SECONDS = 0.1


@dataclass
class Config:
    """How answers are made. `temperature` 0 is greedy; `stop` are texts that end an answer (and
    are not part of it); `template` are arguments of the chat template; `penalties` as in
    penalties.py; `stream` tells answers while they grow."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: list[str] = field(default_factory=list)
    template: Json = field(default_factory=dict)
    penalties: Json = field(default_factory=dict)
    backend: str = "plain"
    batch: int = BATCH
    stream: bool = False

    @classmethod
    def of(cls, raw: Any) -> Config:
        """The configuration of a frame, every value of its type. Raises Trouble."""
        made = cls()
        if not isinstance(raw, dict):
            raise Trouble("config", "the configuration is no object")
        for key, value in raw.items():
            if key not in cls.__dataclass_fields__:
                raise Trouble("config", f"unknown key {str(key)[:50]}")
            wanted = type(getattr(made, key))
            if wanted is float and type(value) is int:
                value = float(value)
            if type(value) is not wanted:
                raise Trouble("config", f"{key} is no {wanted.__name__}")
            setattr(made, key, value)
        limits = made.max_tokens > 0 and made.batch > 0 and made.top_k >= 0
        if not limits or made.temperature < 0 or not 0 < made.top_p <= 1 or made.seed < 0:
            raise Trouble("config", "a number of the configuration is out of its limits")
        if not all(isinstance(text, str) and text for text in made.stop):
            raise Trouble("config", "stop is no list of texts")
        return made


class Job:
    """The items of one `generate` frame, and where their results go. `rows` are (id, tokens), the
    longest first, so that memory that does not suffice shows at once; an item that cannot be
    asked has been told as an error of its own."""

    def __init__(self, message: Json, loaded: Loaded, send: Send, stop: Callable[[], bool]) -> None:
        self.id = str(message.get("job", ""))
        self.config = Config.of(message.get("config", {}))
        self.loaded, self.send, self.stopped = loaded, send, stop
        self.rows: list[tuple[str, list[int]]] = []
        self.started = time.monotonic()
        self.told = self.tokens = 0
        self._asked: dict[str, int] = {}
        """Tokens of each prompt."""
        items = message.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise Trouble("config", "items is no list of objects")
        for item in items:
            name = str(item.get("id", ""))
            try:
                ids = loaded.encode(item, self.config.template)
            except Trouble as trouble:
                self._tell({"id": name, "error": trouble.text})
                continue
            self.rows.append((name, ids))
            self._asked[name] = len(ids)
        self.rows.sort(key=lambda row: -len(row[1]))

    def result(self, name: str, tokens: list[int], ms: float, batch: int) -> None:
        """Tell an answer; `tokens` may go on behind its end."""
        text, count, finish = self.read(tokens)
        self.tokens += count
        if self.stopped() and finish == "length" and count < self.config.max_tokens:
            return  # cancelled in the middle: no answer
        self._tell(
            {
                **{"id": name, "text": text, "tokens": count, "finish": finish},
                **{"ms": round(ms, 1), "batch": batch, "backend": self.config.backend},
                "prompt_tokens": self._asked.get(name, 0),
            }
        )

    def read(self, tokens: list[int]) -> tuple[str, int, str]:
        """Text, number of tokens and why it ended ("stop" or "length") of an answer."""
        ends = set(self.loaded.ends)
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        body = tokens if end is None else tokens[:end]
        text = self.loaded.tokenizer.decode(body, skip_special_tokens=True)
        count = len(tokens) if end is None else end + 1
        cut = min((at for at in map(text.find, self.config.stop) if at >= 0), default=-1)
        if cut >= 0:
            return text[:cut], count, "stop"
        return text, count, "length" if end is None else "stop"

    def _tell(self, body: Json) -> None:
        self.told += 1
        self.send({"kind": "result", "job": self.id, "digest": self.loaded.digest, **body})

    def done(self, batch: int) -> None:
        """Tell that there is no more to come."""
        self.send(
            {
                **{"kind": "done", "job": self.id, "digest": self.loaded.digest},
                **{"told": self.told, "tokens": self.tokens, "cancelled": self.stopped()},
                **{"seconds": round(time.monotonic() - self.started, 3), "batch": batch},
                "backend": self.config.backend,
            }
        )
