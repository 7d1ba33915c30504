"""A rank's thread beside its work: it shows that the process lives, and hears of the others.

Over the launch's store, which the agents of torch elastic keep: a rank on another host reaches the
engine only this way while rank 0 waits in a collective that never ends. Where the store is gone,
its host is, and with it this launch: the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import psutil

from engine.ranks import words
from engine.ranks.link import Link, LinkBroken
from engine.ranks.order import Order
from engine.training.parallel import Ranks

BEAT_SECONDS = 1.0
SILENT_SECONDS = 5.0
"""A process that shows no life for so long does not move."""
LOST, FIRST = "trainctl/lost", "trainctl/first"


class LaunchStore:
    """The launch's store, of which each rank has a connection of its own."""

    def __init__(self, order: Order) -> None:
        import torch.distributed as dist

        self.order = order
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = dist.TCPStore(
            *place,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=order.timeout_seconds),
        )

    def take_place(self) -> int:
        """This process's rank. torch elastic counts hosts as they come; ours begin with the
        engine's, so that rank 0 reaches the engine."""
        order = self.order
        group, local = int(os.environ["GROUP_RANK"]), int(os.environ["LOCAL_RANK"])
        if order.leads and local == 0:
            self._store.set(FIRST, str(group))
        first = int(self._store.get(FIRST))
        rank = (group - first) % order.nodes * order.each + local
        os.environ["RANK"] = str(rank)
        return rank

    def show(self, rank: int, memory: int) -> None:
        """This rank's process lives."""
        self._store.set(f"trainctl/alive/{rank}", json.dumps([time.monotonic(), memory]))

    def shown(self) -> dict[int, tuple[str, int]]:
        """What each rank showed last, and its memory."""
        keys = {rank: f"trainctl/alive/{rank}" for rank in range(self.order.size)}
        there = {rank: key for rank, key in keys.items() if self._store.check([key])}
        values = self._store.multi_get([*there.values()]) if there else []
        texts = [bytes(value).decode() for value in values]
        return {r: (t, int(json.loads(t)[1])) for r, t in zip(there, texts, strict=True)}

    def lost(self, said: dict[str, Any]) -> None:
        """A rank has failed; the first one's words stay."""
        if said["felt"] or not self._store.check([LOST]):
            self._store.set(f"{LOST}/felt" if said["felt"] else LOST, json.dumps(said))

    def first_lost(self) -> dict[str, Any] | None:
        """What the rank that failed said, None while none has."""
        if not self._store.check([LOST]):
            return None
        said: dict[str, Any] = json.loads(self._store.get(LOST))
        return said


class Watch:
    """The thread. Rank 0's tells the engine."""

    def __init__(self, store: LaunchStore, rank: int, link: Link | None) -> None:
        self._store, self._rank, self._link = store, rank, link
        self._ended = threading.Event()
        self._process = psutil.Process()
        self._seen: dict[int, tuple[str, float]] = {}
        self.ranks: Ranks | None = None
        """Rank 0's, once it has joined the others."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="rank-watch", daemon=True).start()

    def stop(self) -> None:
        """The launch ends as it was asked to: nothing is told any more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._store.show(self._rank, self._memory())
                if self._link is not None:
                    self._tell(self._link)
            except (RuntimeError, ValueError) as error:
                if not self._ended.is_set():
                    print(
                        f"rank {self._rank}: the launch's store is gone: {error}", file=sys.stderr
                    )
                    os._exit(1)

    def _tell(self, link: Link) -> None:
        shown, now = self._store.shown(), time.monotonic()
        for rank, (text, _) in shown.items():
            if self._seen.get(rank, ("", 0.0))[0] != text:
                self._seen[rank] = (text, now)
        silent = [r for r, (_, at) in self._seen.items() if now - at > SILENT_SECONDS]
        with contextlib.suppress(LinkBroken):  # the thread that receives hears of that
            memory = {str(rank): memory for rank, (_, memory) in shown.items()}
            link.send({"alive": {"silent": silent, "memory": memory}})
            lost = self._store.first_lost() or self._missed()
            if lost is not None:
                link.send({"lost": lost})

    def _missed(self) -> dict[str, Any] | None:
        """That the others are out of reach, where rank 0 waits for the engine and not for them."""
        error = self.ranks.broken if self.ranks is not None else None
        if error is None:
            return None
        return words.lost(error, self._rank)

    def _memory(self) -> int:
        """Bytes: of this rank's card where it trains on one, else of its process."""
        import torch

        if torch.cuda.is_initialized():
            return int(torch.cuda.memory_reserved())
        return int(self._process.memory_info().rss)
