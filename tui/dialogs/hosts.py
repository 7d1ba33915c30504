"""The evaluation hosts: whether each is free, what it has, why it cannot be reached; and whose key
is believed.

The engine tells how they stand, anew every second; what a host holds is asked only when wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textual.binding import Binding

from tui.dialogs.base import Fact
from tui.dialogs.item import facts_under
from tui.dialogs.trust import ChangedKeyDialog, NewKeyDialog
from tui.dialogs.whole import WholeView
from tui.evaluation import hosts_of
from tui.figures import age, clock_time, count, gigabytes, known, real, size, why
from tui.frame import Frame, Record
from tui.safe import Line, clip, line_text, pad, wrap

Fetch = Callable[..., None]
"""(command, then, failed, **arguments): asks the engine, and ends in the event loop."""

FOLLOW_SECONDS = 1.0
TONES = {"idle": "good", "busy": "", "unreachable": "bad", "unknown": "dim"}
NONE = (
    "No host is configured, so evaluations run on this machine, at the lowest priority. A host is a"
    " machine with a card that ssh reaches: write [hosts.NAME] with ssh = its alias into"
    " config.toml, then trainctl doctor --host NAME."
)
LOCAL = "local"


class HostsView(WholeView):
    """`frame` gives the newest frame."""

    BINDINGS = [
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("r,enter", "look", show=False),
        Binding("t", "trust", show=False),
        Binding("escape,q,H", "leave", show=False),
    ]
    keys = "r ask it  t trust its key  up/down choose  Esc close"

    def __init__(self, frame: Callable[[], Frame], fetch: Fetch) -> None:
        super().__init__("Evaluation hosts")
        self._frame = frame
        self._fetch = fetch
        self._host: object = None
        self._looks: dict[object, Record | str] = {}
        """By host, what it said of itself when asked, or why it did not."""
        self._shown: object = None
        self._busy = ""

    def begin(self) -> None:
        self._body.say(self._lines)
        self._shown = self._told()
        self.set_interval(FOLLOW_SECONDS, self._follow)

    def _told(self) -> object:
        frame = self._frame()
        return frame.status.get("hosts"), frame.lost

    def _follow(self) -> None:
        told = self._told()
        if told != self._shown:
            self._shown = told
            self._renew()

    def _renew(self) -> None:
        if self.is_attached:
            self._body.renew()
            self.call_after_refresh(self.foot)

    # -- what is shown

    def _hosts(self) -> list[Record]:
        return hosts_of(self._frame().status)

    def _chosen(self) -> Record | None:
        hosts = self._hosts()
        found = next((one for one in hosts if one.get("name") == self._host), None)
        return found or (hosts[0] if hosts else None)

    def _lines(self, width: int) -> list[Line]:
        frame, hosts, chosen = self._frame(), self._hosts(), self._chosen()
        if chosen is None:
            reason = why(frame.status.get("hosts"))
            text = f"What the hosts are at is not known: {reason}." if reason else NONE
            return [((part, "dim"),) for part in wrap(text, width)]
        lines: list[Line] = []
        for host in hosts:
            state = str(host.get("state"))
            about = _about(host, frame.now)
            text = f"{pad(host.get('name'), 14)} {pad(state, 11)} {about}"
            if host is chosen:
                lines.append(((pad(">" + line_text(((text, ""),)), width), "chosen"),))
            else:
                tone = TONES.get(state, "")
                lines.append(
                    (
                        (f" {pad(host.get('name'), 14)} ", ""),
                        (pad(state, 11), tone),
                        (clip(f" {about}", width - 27), "dim"),
                    )
                )
        facts = host_facts(chosen, frame.now)
        said = self._looks.get(chosen.get("name"))
        if isinstance(said, str):
            facts.append(("asked", said))
        elif said is not None:
            facts += look_facts(said, frame.now)
        return [*lines, (), *facts_under(facts, width, ascii=self.ascii)]

    def action_move(self, by: int) -> None:
        self._note = ""
        names = [host.get("name") for host in self._hosts()]
        chosen = self._chosen()
        if chosen is None:
            return
        at = names.index(chosen.get("name")) + by
        self._host = names[max(0, min(at, len(names) - 1))]
        self._body.say(self._lines)
        self.call_after_refresh(self.foot)

    # -- asking it

    def action_look(self) -> None:
        chosen = self._wanted()
        if chosen is None:
            return
        name = chosen.get("name")
        if name == LOCAL:
            self.note("local is this machine: the meters tell of it")
            return
        self._begin(f"asking {name}, which may take half a minute…")

        def then(found: Any) -> None:
            self._looks[name] = found
            self._end("")

        def failed(reason: str) -> None:
            self._looks[name] = reason
            self._end(reason)

        self._fetch("host_look", then, failed, host=name)

    # -- whose key

    def action_trust(self) -> None:
        chosen = self._wanted()
        if chosen is None:
            return
        name = str(chosen.get("name"))
        if name == LOCAL:
            self.note("local is this machine, which needs no key")
            return
        self._begin(f"asking {name} for its key…")

        def then(key: Any) -> None:
            self._end("")
            if not self.is_attached:
                return
            if key.get("known"):
                told = f"{key.get('fingerprint')} ({key.get('type')})"
                self.note(f"the key of {name} is known already: {told}")
                return
            dialog = ChangedKeyDialog(key) if key.get("changed") else NewKeyDialog(key)
            self.app.push_screen(dialog, answered)

        def answered(fingerprint: Any) -> None:
            if fingerprint:
                self._accept(name, str(fingerprint))
            else:
                self.note("nothing was written: the key is not trusted")

        self._fetch("host_key", then, self._end, host=name)

    def _accept(self, name: str, fingerprint: str) -> None:
        self._begin(f"asking {name} for its key again…")
        done = f"{name}: {fingerprint} is trusted from now on"
        self._fetch(
            "host_trust", lambda _: self._end(done), self._end, host=name, fingerprint=fingerprint
        )

    def _wanted(self) -> Record | None:
        """The chosen host, unless another wish is still carried out."""
        if self._busy:
            self.note(self._busy)
            return None
        chosen = self._chosen()
        if chosen is None:
            self.note("there is no host here")
        return chosen

    def _begin(self, text: str) -> None:
        self._busy = text
        self.note(text)

    def _end(self, text: str) -> None:
        self._busy = ""
        if self.is_attached:
            self.note(text)
            self._renew()


def _about(host: Record, now: float) -> str:
    """Why it is as it is, or what it does."""
    if host.get("error"):
        return str(host.get("error"))
    if known(host.get("job")):
        return f"job {host.get('job')}"
    if real(host.get("idle_since")) is not None:
        return f"for {age(now, host.get('idle_since'))}"
    return ""


def host_facts(host: Record, now: float) -> list[Fact]:
    """What the engine knows of a host."""
    seen = host.get("seen")
    when = f"{age(now, seen)} ago, {clock_time(seen)}" if real(seen) is not None else why(seen)
    job = host.get("job")
    facts: list[Fact] = [("seen", when or "?")]
    if host.get("error"):
        facts.append(("error", str(host.get("error"))))
    facts.append(("job", count(job) if known(job) else f"none: {why(job)}"))
    cards = host.get("gpus")
    if isinstance(cards, list):
        facts += [(f"GPU{number}", card_text(card)) for number, card in enumerate(cards)]
        if not cards:
            facts.append(("GPU", "none: it computes on its CPU"))
    else:
        facts.append(("GPU", f"? {why(cards)}"))
    ram = host.get("ram")
    if isinstance(ram, Mapping) and not why(ram):
        facts.append(("RAM", f"{size(ram.get('used'))} of {size(ram.get('total'))}"))
    return facts


def card_text(card: Any) -> str:
    """A card of a host in a line."""
    if not isinstance(card, Mapping):
        return "?"
    use, degrees = real(card.get("utilization")), real(card.get("temperature"))
    parts = [
        str(card.get("name", "?")),
        "?%" if use is None else f"{use:.0f}%",
        f"{gigabytes(card.get('memory_used'))}/{gigabytes(card.get('memory_total'))}G",
        "" if degrees is None else f"{degrees:.0f}C",
    ]
    return " ".join(filter(None, parts))


def look_facts(row: Record, now: float) -> list[Fact]:
    """What a host said of itself when it was asked; the engine's answer to `host_look`."""
    facts: list[Fact] = ["Asked just now"]
    state, reason = str(row.get("state")), str(row.get("why") or "")
    facts.append(("state", f"{state}: {reason}" if reason else state))
    facts.append(("ssh", str(row.get("ssh"))))
    disk = row.get("disk")
    if not isinstance(disk, Mapping) or why(disk):
        return facts  # it could not be asked, and the reason stands above
    free = f"{size(disk.get('free'))} free of {size(disk.get('total'))}"
    facts.append(("disk", f"{free}, store {disk.get('store')}"))
    packages = row.get("packages")
    told = ""
    if isinstance(packages, Mapping) and not why(packages):
        told = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    facts.append(("Python", " with ".join(filter(None, (str(row.get("python")), told)))))
    facts.append(("backends", ", ".join(map(str, row.get("backends") or ())) or "none"))
    facts += [("holds", text) for text in _models(row.get("models"), now)]
    deployed = row.get("deployed")
    if isinstance(deployed, Mapping) and not why(deployed):
        facts.append(("serves", f"{deployed.get('version')}, the best version"))
    return facts


def _models(models: Any, now: float) -> Sequence[str]:
    found = [one for one in models if isinstance(one, Mapping)] if isinstance(models, list) else []
    if not found:
        return ["no model"]
    names = [
        str(one.get("version")) if known(one.get("version")) else str(one.get("digest"))[:12]
        for one in found
    ]
    return [
        f"{name}, {size(one.get('bytes'))}, used {age(now, one.get('used'))} ago"
        for name, one in zip(names, found, strict=True)
    ]
