"""Programs beside training give way to it and do not outlive who started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.waiting import wait_until


def test_a_child_gives_way_and_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from queue_store import programs\n"
        "programs.run([sys.executable, '-c', \"import os, psutil, time\\n"
        "p = psutil.Process()\\n"
        "print(os.getpid(), p.nice(), int(p.ionice().ioclass), flush=True)\\n"
        'time.sleep(600)"], on_line=lambda l: (sys.stdout.write(l.decode()), sys.stdout.flush()))'
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, nice, idle = map(int, parent.stdout.readline().split())
    assert nice >= 10 and idle == 3
    parent.kill()
    parent.wait()
    wait_until(lambda: not _alive(pid), what="the child's end")
    parent.stdout.close()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
