"""sd_notify: a few datagrams with which a service tells systemd how it is. Nothing without it.

Source of the protocol: sd_notify(3). Must never raise: training does not depend on systemd.
"""

from __future__ import annotations

import os
import socket


def notify(**fields: str | int) -> bool:
    """Send NAME=value lines to $NOTIFY_SOCKET; False where there is none or it does not answer."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    address = "\0" + place[1:] if place.startswith("@") else place
    text = "\n".join(f"{name}={value}" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.setblocking(False)
            link.sendto(text.replace("\0", " ").encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float:
    """How often systemd wants to hear from us: half of WATCHDOG_USEC; 0 where it does not."""
    pid = os.environ.get("WATCHDOG_PID", "")
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 2e6
