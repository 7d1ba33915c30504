"""Whether the key of a host is believed from now on: one that is new by a button, one that took the
place of another only by the host's name, typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tui.dialogs.base import Dialog, Fact
from tui.dialogs.typed import TypedDialog
from tui.frame import Record


def key_facts(key: Record) -> list[Fact]:
    """The key, and how a person makes sure of it."""
    kind = str(key.get("type"))
    return [
        ("host", f"{key.get('host')} ({key.get('ssh')})"),
        ("key", f"{key.get('fingerprint')} ({kind})"),
        ("compare", f"on the host: ssh-keygen -lf /etc/ssh/ssh_host_{kind.lower()}_key.pub"),
        ("written to", str(key.get("file"))),
    ]


class NewKeyDialog(Dialog):
    """Of a host that nobody knew. Result: the fingerprint that was agreed to."""

    button = "Trust this key"

    def __init__(self, key: Record) -> None:
        super().__init__()
        self.title_text = f"Trust the key of {key.get('host')}"
        self._key = key

    def facts(self) -> Sequence[Fact]:
        return [*key_facts(self._key), "Whoever has this key is sent the weights and the sets."]

    def result(self, button: str) -> Any:
        return str(self._key.get("fingerprint"))


class ChangedKeyDialog(TypedDialog):
    """Of a host of which another key is known. Result: the fingerprint that was agreed to."""

    button = "Trust the new key"

    def __init__(self, key: Record) -> None:
        super().__init__(
            "ANOTHER KEY OF THIS HOST IS KNOWN: it was set up anew, or somebody is in between."
        )
        self.title_text = f"The key of {key.get('host')} has CHANGED"
        self.word = str(key.get("host"))
        self._key = key

    def facts(self) -> Sequence[Fact]:
        return key_facts(self._key)

    def agreed(self) -> Any:
        return str(self._key.get("fingerprint"))
