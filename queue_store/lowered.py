"""`python -I -S lowered.py PARENT SIGNAL NICE PROGRAM …`: become a program that gives way and ends
with us.

NICE on the processor (19 is the lowest), idle on the disk, SIGNAL when the parent dies; then exec.
Standard library only, and nothing of ours: it starts in 20 ms. A thread-safe place for what
`preexec_fn` would do between fork and exec of a process that has threads.
"""

import ctypes
import os
import platform
import sys

PR_SET_PDEATHSIG = 1
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
IDLE = 3 << 13


def main(arguments: list[str]) -> None:
    parent, number, nice = (int(word) for word in arguments[:3])
    program = arguments[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform == "linux"
    if linux:
        libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)
    os.nice(nice)  # at 10 it takes a tenth of a core that trains, at 19 a seventieth
    call = IOPRIO_SET.get(platform.machine())
    if linux and call is not None:
        libc.syscall(call, 1, 0, IDLE)
    try:
        os.execvp(program[0], program)
    except FileNotFoundError:
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
