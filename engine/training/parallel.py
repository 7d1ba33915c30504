"""The ranks of one training: N processes that do the same steps at the same time.

Started under torch elastic's environment (torchrun, accelerate). The steps' collectives go over
the process group of torch (gloo on the CPU, nccl on cards); what is decided goes over a gloo
group of its own, the controls' group, as JSON: rank 0 decides, all ranks hear it and do the same.
While rank 0 makes up its mind (it is paused, it samples, it writes to the disk) the others wait
without work and without a deadline: it tells them every few seconds that it is still there, so
that no collective runs into its timeout however long a pause is.

An error that all ranks have at the same step is raised on all of them. One that a single rank has
must end its process: the others then see its connection break, and torch elastic ends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from engine.training.controls import NonFinite
from queue_store.errors import ConfigError, TrainctlError

BEAT_SECONDS = 5.0
"""How often rank 0 says that it is still there; a quarter of the timeout where that is shorter."""

_HEAD = 1016
"""Bytes of a message that go with its length in one broadcast; the rest follows in a second."""


class RanksDiffer(TrainctlError):
    """Ranks that should hold the same do not: nothing that they hold may be saved."""

    code = "ranks_differ"


class RankFailed(TrainctlError):
    """Rank 0 failed while the others waited for what it would decide."""

    code = "rank_failed"


class Ranks:
    """This process among the `size` of a training. `device` is this rank's ("cpu", "cuda:3");
    `sharded`: the model is split over the ranks (FSDP2), else each holds a copy (DDP).

    `acts` are what rank 0 may ask of all ranks while they wait for it, by name; whoever has one
    puts it in on every rank.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        *,
        device: str = "cpu",
        sharded: bool = False,
        controls: Any = None,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size
        self.device = device
        self.sharded = sharded
        self.acts: dict[str, Callable[..., Any]] = {}
        self._controls = controls
        self._lock = threading.Lock()
        self._asking = False
        self._ended = threading.Event()
        self._beat_seconds = min(BEAT_SECONDS, timeout_seconds / 4)
        self._broken: Exception | None = None
        if size > 1 and rank == 0:
            threading.Thread(target=self._beats, name="ranks-beats", daemon=True).start()

    @classmethod
    def begin(cls, size: int, device: str, sharded: bool, timeout_seconds: float = 600.0) -> Ranks:
        """Join the others; returns when all `size` are there. `device` is "cpu" or "cuda".

        Raises TrainctlError where the environment is not torch elastic's or has another world
        size, and ConfigError where this host has fewer GPUs than processes.
        """
        rank, world, local_rank, local_size = _environment()
        if world != size:
            raise TrainctlError(
                f"{world} processes were started, {size} are wanted",
                where="training.processes",
                mend="start as many as are configured: two trainings of one folder harm it",
            )
        # Where this is not set, accelerate sets torch's threads anew with every Trainer.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
        timeout = timedelta(seconds=timeout_seconds)
        own = _card(local_rank, local_size) if device != "cpu" else "cpu"
        dist.init_process_group("nccl" if own != "cpu" else "gloo", timeout=timeout)
        if dist.get_world_size() != size:
            raise TrainctlError(f"the group has {dist.get_world_size()} ranks, {size} are wanted")
        return cls(
            *(rank, size, local_rank, local_size),
            device=own,
            sharded=sharded,
            controls=dist.new_group(backend="gloo", timeout=timeout),
            timeout_seconds=timeout_seconds,
        )

    @property
    def broken(self) -> Exception | None:
        """Why rank 0 does not reach the others any more, seen while it made up its mind."""
        return self._broken

    def end(self) -> None:
        """Leave the groups. Every rank calls it; nothing can be shared afterwards."""
        self._ended.set()
        if self.size > 1:
            with self._lock:
                dist.destroy_process_group()

    # -- over the controls' group -----------------------------------------------------------------

    def share(self, value: Any = None) -> Any:
        """Rank 0's JSON value, on every rank; what the others give is not looked at."""
        if self.size == 1:
            return value
        with self._lock:
            return self._exchange("value", value)

    def collect(self, value: Any) -> list[Any]:
        """The JSON values of all ranks in their order, on every rank."""
        if self.size == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._lock:
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([own.numel()]), group=self._controls)
            longest = max(int(n) for n in sizes)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: own.numel()] = own
            parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, padded, group=self._controls)
        return [
            json.loads(part[: int(n)].numpy().tobytes())
            for part, n in zip(parts, sizes, strict=True)
        ]

    def same(self, what: str, value: Any) -> None:
        """Raises RanksDiffer on every rank, with the ranks that differ from rank 0, unless all
        have the same JSON value."""
        values = self.collect(value)
        others = [str(rank) for rank, other in enumerate(values) if other != values[0]]
        if others:
            one = len(others) == 1
            ranks = f"rank {others[0]} differs" if one else f"ranks {', '.join(others)} differ"
            raise RanksDiffer(
                f"{ranks} from rank 0 in {what}",
                mend="the state of the last checkpoint is good: training goes on from there",
            )

    def decide(self, ask: Callable[[], Any]) -> Any:
        """The JSON answer of rank 0's `ask()`, on every rank. The others wait for as long as it
        takes, and carry out what rank 0 calls for in the meantime (`together`).

        Raises on rank 0 what `ask` raises, and on the others RankFailed with its words; where it
        was an act that failed for all alike (NonFinite, RanksDiffer), that.
        """
        if self.size == 1:
            return ask()
        if self.rank:
            return self._follow()
        try:
            self._ask(True)
            try:
                answer = ask()
            finally:
                self._ask(False)
        except BaseException as error:
            with contextlib.suppress(RuntimeError), self._lock:
                self._exchange("failed", f"{type(error).__name__}: {error}")
            raise
        with self._lock:
            return self._exchange("answer", answer)

    def together(self, act: str, **arguments: Any) -> Any:
        """Rank 0, within `decide`: every rank carries out its act of that name with the same JSON
        arguments. Returns what rank 0's own gave."""
        if self.size == 1:
            return self.acts[act](**arguments)
        if self.rank:
            raise RuntimeError(f"rank {self.rank} asked for {act}: only rank 0 does")
        with self._lock:
            was, self._asking = self._asking, False
            self._exchange("act", {"name": act, "arguments": arguments})
        try:
            return self.acts[act](**arguments)
        finally:
            self._ask(was)

    def _follow(self) -> Any:
        """Wait for rank 0's answer, doing what it calls for."""
        failure: NonFinite | RanksDiffer | None = None
        while True:
            with self._lock:
                kind, value = self._receive()
            if kind == "answer" and failure is None:
                return value
            if kind == "still":
                continue
            if failure is not None:
                raise failure  # rank 0 has it too
            if kind != "act":
                words = value if kind == "failed" else f"said {kind} where an answer was due"
                raise RankFailed(f"rank 0: {words}")
            try:
                self.acts[value["name"]](**value["arguments"])
            except (NonFinite, RanksDiffer) as error:
                failure = error

    def _ask(self, asking: bool) -> None:
        with self._lock:
            self._asking = asking

    def _beats(self) -> None:
        """Rank 0's thread: says that it is still there while it makes up its mind."""
        while not self._ended.wait(self._beat_seconds):
            with self._lock:
                if not self._asking or self._ended.is_set():
                    continue
                try:
                    self._exchange("still", None)
                except RuntimeError as error:
                    self._broken = error  # told by whoever speaks next
                    return

    def _exchange(self, kind: str, value: Any) -> Any:
        """One message from rank 0 to all; the lock is held. Returns its value."""
        if self.rank:
            heard, value = self._receive()
            if heard != kind:
                raise RankFailed(f"rank 0 said {heard} where a {kind} was due: out of step")
            return value
        if self._broken is not None:
            raise self._broken
        data = json.dumps([kind, value]).encode()
        head = torch.zeros(8 + _HEAD, dtype=torch.uint8)
        head[:8] = torch.frombuffer(bytearray(len(data).to_bytes(8, "little")), dtype=torch.uint8)
        body = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        head[8 : 8 + min(len(data), _HEAD)] = body[:_HEAD]
        dist.broadcast(head, 0, group=self._controls)
        if len(data) > _HEAD:
            dist.broadcast(body[_HEAD:].clone(), 0, group=self._controls)
        # As the others have it: tuples are lists, keys are text.
        return json.loads(data)[1]

    def _receive(self) -> tuple[str, Any]:
        head = torch.zeros(8 + _HEAD, dtype=torch.uint8)
        dist.broadcast(head, 0, group=self._controls)
        raw = head.numpy().tobytes()
        length = int.from_bytes(raw[:8], "little")
        data = raw[8 : 8 + length]
        if length > _HEAD:
            rest = torch.zeros(length - _HEAD, dtype=torch.uint8)
            dist.broadcast(rest, 0, group=self._controls)
            data += rest.numpy().tobytes()
        kind, value = json.loads(data)
        return kind, value

    # -- over the steps' group --------------------------------------------------------------------

    def gather(self, values: Sequence[float | torch.Tensor]) -> torch.Tensor:
        """The `values` of all ranks as float64 [size, n] on this rank's device, on every rank. One
        small collective; nothing waits for a GPU."""
        device = torch.device(self.device)
        parts = [torch.as_tensor(v, dtype=torch.float64, device=device) for v in values]
        own = torch.stack(parts)
        if self.size == 1:
            return own[None]
        whole = torch.empty(self.size, len(parts), dtype=torch.float64, device=device)
        dist.all_gather(list(whole), own)
        return whole


ALONE = Ranks()
"""One process: everything is decided here, and nothing is said to anybody."""


def _environment() -> tuple[int, int, int, int]:
    """(rank, world size, local rank, processes on this host), as torch elastic says them."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, world, local_rank, local_size = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise TrainctlError(
            f"this process was not started by torch elastic: {error} is not set",
            mend="start it by torchrun, or set training.processes = 1",
        ) from None
    return rank, world, local_rank, local_size


def _card(local_rank: int, local_size: int) -> str:
    """This rank's GPU, made the current one; where a process sees one alone (Slurm), that."""
    seen = torch.cuda.device_count()
    if (seen != 1 and seen < local_size) or not seen:
        raise ConfigError(
            f"{local_size} processes run on this host, which has {seen} GPUs",
            where="training.processes",
            mend=f"set it to {seen}" if seen else "set it to 1",
        )
    index = local_rank if seen > 1 else 0
    torch.cuda.set_device(index)
    return f"cuda:{index}"
