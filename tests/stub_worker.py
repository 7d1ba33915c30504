"""The real worker on a host, with a model that echoes, and misfortune after so many answers.

`stub_worker.py PLAN -u -c BOOT`: PLAN is a JSON file {"acts": [...]}; each run takes the first act
away: {"after": N, "act": A}, or null. What each run was asked is appended to PLAN.asked. Real are
the loop, the frames, the store and its digests; only torch is missing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

FREEZE = signal.SIGSTOP


class Echo:
    """A tokenizer of characters; an answer ends with the character 0."""

    pad_token_id = 0

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, ids))


class Model:
    """What serve.py asks of a loaded model."""

    ends, device, dtype = [0], "cpu", "fp32"
    tokenizer = Echo()

    def __init__(self, digest: str, probe: list[list[float]]) -> None:
        self.digest, self._probe = digest, probe

    def encode(self, item: dict[str, Any], template: dict[str, Any]) -> list[int]:
        said = item.get("text") or item["messages"][-1]["content"]
        if said == "too long":
            from evaluation.host.shipped.frames import Trouble

            raise Trouble("item", "the prompt has 9 tokens, the model's context 8")
        return [ord(c) for c in said]

    def probe(self) -> list[list[float]]:
        return self._probe


def main() -> None:
    plan = Path(sys.argv[1])
    said = json.loads(plan.read_text())
    act = said["acts"].pop(0) if said["acts"] else None
    plan.write_text(json.dumps(said))
    if said.get("noise"):
        print(said["noise"], flush=True)
    read = sys.stdin.buffer.read
    source = read(int(read(8))).decode()
    head, _, _ = source.rstrip().rpartition("\n")
    exec(compile(head, "worker", "exec"), {})
    serve: Any = sys.modules["evaluation.host.shipped.serve"]
    for name, value in said.get("serve", {}).items():
        setattr(serve, name, value)

    def load(folder: Path, adapter: Path | None, digest: str, *others: Any) -> Model:
        if act and act["act"] == "other model":
            digest = "0" * 64
        print("a library prints while it loads")
        return Model(digest, said.get("probe", [[1, -0.5], [2, -1.5]]))

    class Backend:
        NAME = "plain"

        @staticmethod
        def available() -> bool:
            return True

        @staticmethod
        def run(job: Any) -> None:
            with plan.with_suffix(".asked").open("a") as file:
                file.write(json.dumps([name for name, _ in job.rows]) + "\n")
            for count, (name, ids) in enumerate(job.rows):
                if act and count == act["after"]:
                    ids = misfortune(act["act"], job) or ids
                if job.stopped():
                    break
                job.result(name, [*map(ord, "said "), *ids, 0], 1.0, 4)
            job.done(4)

    def misfortune(name: str, job: Any) -> list[int] | None:
        """May say what the model answers in place of the prompt."""
        out = job.send.__self__.out
        if name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "frozen":
            os.kill(os.getpid(), FREEZE)
        elif name == "silent":
            signal.pause()
        elif name == "garbage":
            os.write(out, b"\xff" * 64)
            signal.pause()
        elif name == "no json":
            os.write(out, (5).to_bytes(4, "big") + b"hello")
            signal.pause()
        elif name == "cut":
            os.write(out, (500).to_bytes(4, "big") + b"{")
            os._exit(0)
        elif name == "unknown item":
            job.result("nobody asked this", [65, 0], 1.0, 4)
        elif name == "other digest":
            job.loaded.digest = "1" * 64
        elif name == "hostile":
            for text in ("\x1b", "\x1b]52;c;", "\x1b]52;c;aGk=\x07caf\ufffd"):
                body = {"job": job.id, "text": f"said {text}", "tokens": 2}
                job.send({"kind": "progress", **body})
            job.send({"kind": "progress", "job": job.id, "text": ["none"], "tokens": "x"})
            return [*map(ord, "\x1b]52;c;aGk=\x07caf\xe9\r\x9b31m")]
        elif name == "right":
            return [ord("4")]
        elif name == "early done":
            job.rows.clear()
            job.done(1)
        elif name == "until cancelled":
            while not job.stopped():
                signal.sigtimedwait([], 0.02)
        elif name == "crash":
            raise RuntimeError("\x1b[2Jno kernel image\x07")
        return None

    serve.load, serve.BACKENDS = load, (Backend,)
    serve.prepare_process = lambda *_: None
    serve.main()


if __name__ == "__main__":
    main()
