"""A card made small: a process takes what is free of it but for so many bytes, and holds it.

    python -m benchmarks.gpu.ballast DEVICE BYTES

As on a card of that size, what does not fit is refused, and paged memory goes to the host (torch's
own limit holds its allocator alone, and pages stay on a card that has room). Prints the bytes that
it took, and ends with its input.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.gpu.card import is_card


@contextmanager
def leaving(device: str, size: int) -> Iterator[None]:
    """While this lasts, `size` bytes of the card are free for others, contexts included; all of it
    with 0, or without a card. Raises RuntimeError where it has no more than that."""
    if not (size and is_card(device)):
        yield
        return
    words = [sys.executable, "-m", "benchmarks.gpu.ballast", device, str(size)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holds:
        assert holds.stdin is not None and holds.stdout is not None
        try:
            if not holds.stdout.readline():
                raise RuntimeError(f"less than {size / 1e9:.1f} GB of the card are free")
            yield
        finally:
            holds.stdin.close()


def main() -> None:
    import torch

    device, size = sys.argv[1], int(sys.argv[2])
    torch.cuda.init()
    free, _ = torch.cuda.mem_get_info(device)
    if free < size:
        sys.exit(1)
    held = torch.empty(free - size, dtype=torch.uint8, device=device)
    print(held.nbytes, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
