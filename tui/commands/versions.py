"""What the actions on versions ask of the engine.

Reading a version back may take minutes: meanwhile the screen says how far it is, and nothing
waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queue_store.errors import Refused, TrainctlError, VerificationFailed
from tui.commands.asking import Asking
from tui.dialogs.confirm import TextDialog
from tui.dialogs.delete import DeleteDialog, removal_facts
from tui.dialogs.label import DescribeDialog, TagDialog
from tui.dialogs.rollback import RollbackDialog
from tui.dialogs.version import version_facts
from tui.figures import count, percent, real, size

if TYPE_CHECKING:
    from tui.frame import Record
    from tui.poller import Session


class VersionCommands(Asking):
    """The `do_…` methods of the actions on versions."""

    def do_rollback(self) -> None:
        chosen = self._console.versions_pane.selected()
        here = self._console.pane_name == "versions"
        self._plan(chosen.get("name") if here and chosen else None, "Roll back to")

    def do_restore(self) -> None:
        chosen = self._version()
        if chosen is not None:
            self._plan(chosen.get("name"), "Restore")

    def _plan(self, version: Any, verb: str, notice: str = "") -> None:
        """Ask for a plan, show it, do it; a plan that is stale by then is shown anew."""

        def show(plan: Any) -> str:
            reads = bool(plan.get("reads"))
            dialog = RollbackDialog(plan, verb=verb, notice=notice)
            self.dialog(dialog, lambda choice: carry_out(choice, reads))
            return ""

        def carry_out(choice: dict[str, Any], reads: bool) -> None:
            name = choice["version"]

            def refused(error: TrainctlError) -> None:
                if isinstance(error, Refused) and "stale" in error.what:
                    self._plan(name, verb, f"Nothing was done: {error.what}. This is the plan now.")
                else:
                    self._console.say(str(error), "bad")

            session = self._console.poller.session

            def go_back() -> Any:
                if reads:  # before the engine stops for it
                    _read(session, name)
                return session.request("rollback", **choice)

            self.work(go_back, done, refused=refused, doing=f"going back to {name}")

        def done(answer: Any) -> str:
            kept = answer.get("version")
            return f"at step {count(answer.get('step'))}; the state before is {kept}"

        self.ask("rollback_plan", show, doing="looking what would be lost", version=version)

    def do_pin(self) -> None:
        version = self._version()
        if version is not None:
            name, pinned = version.get("name"), not version.get("pinned")
            word = "pinned" if pinned else "no longer pinned"
            self.ask("pin", lambda _: f"{name} is {word}", version=name, pinned=pinned)

    def do_tag(self) -> None:
        version = self._version()
        if version is None:
            return
        name = version.get("name")

        def tag(choice: dict[str, Any]) -> None:
            word = "is tagged" if choice["on"] else "is no longer tagged"
            self.ask("tag", lambda _: f"{name} {word} {choice['name']}", version=name, **choice)

        self.dialog(TagDialog(version), tag)

    def do_describe(self) -> None:
        version = self._version()
        if version is None:
            return
        name = version.get("name")

        def describe(choice: dict[str, Any]) -> None:
            self.ask("describe", lambda _: f"{name} is described", version=name, **choice)

        self.dialog(DescribeDialog(version), describe)

    def do_facts(self) -> None:
        version = self._version()
        if version is None:
            return
        name = version.get("name")

        def show(found: Any) -> str:
            facts = version_facts(found, self._console.frame.now)
            self.dialog(TextDialog(f"Version {name}", facts), lambda _: None)
            return ""

        self.ask("version", show, doing=f"looking at {name}", version=name)

    def do_verify(self) -> None:
        self._verify(deep=False)

    def do_verify_deep(self) -> None:
        self._verify(deep=True)

    def _verify(self, *, deep: bool) -> None:
        version = self._version()
        if version is None:
            return
        name = str(version.get("name"))
        session = self._console.poller.session

        def far(under_way: Any) -> str:
            return next((_far(one) for one in under_way if one.get("version") == name), "")

        good = "loads and computes" if deep else "every file is as it was recorded"
        self.follow(
            lambda: _read(session, name, deep=deep),
            lambda _: f"{name}: {good}",
            progress="verifying",
            far=far,
            doing=f"reading {name} back",
        )

    def do_delete(self) -> None:
        version = self._version()
        if version is None:
            return
        name = version.get("name")

        def show(plan: Any) -> str:
            now = self._console.frame.now
            if plan.get("refused"):
                facts = [str(plan.get("refused")), *removal_facts(plan, now)]
                self.dialog(TextDialog(f"{name} cannot be deleted", facts), lambda _: None)
            else:
                self.dialog(DeleteDialog(plan, now), delete)
            return ""

        def delete(choice: dict[str, Any]) -> None:
            self.ask(
                "delete",
                lambda answer: f"{name} is in the trash{_freed(answer)}",
                doing=f"deleting {name}",
                **choice,
            )

        self.ask("removal_plan", show, doing="looking what would go", version=name)

    def _version(self) -> Record | None:
        version = self._console.versions_pane.selected()
        if version is None:
            self._no("there is no version yet: s takes one")
        return version


def _read(session: Session, name: str, *, deep: bool = False) -> Any:
    """Have the engine read a version back. Raises VerificationFailed where it is damaged."""
    row = session.request("verify", version=name, deep=deep)
    if not row.get("ok"):
        raise VerificationFailed(str(row.get("problem")))
    return row


def _far(one: Record) -> str:
    read, of = real(one.get("read_bytes")) or 0, real(one.get("size_bytes"))
    if not of:
        return f"reading {one.get('version')} back…"
    return f"reading {one.get('version')} back: {size(read)} of {size(of)} ({percent(read / of)})"


def _freed(answer: Any) -> str:
    freed = answer.get("freed_bytes") if isinstance(answer, dict) else None
    return f", {size(freed)} freed once it is emptied" if real(freed) else ""
