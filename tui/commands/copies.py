"""What the actions on a version's whereabouts ask of the engine: copies elsewhere, the trash, the
comparison with another version, and the checkpoints beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queue_store.errors import Refused
from tui.commands.asking import Asking
from tui.dialogs.backup import BackupDialog
from tui.dialogs.checkpoints import checkpoint_lines
from tui.dialogs.compare import CompareView
from tui.dialogs.reading import ReadingView
from tui.dialogs.trash import TrashView
from tui.figures import percent, real, size, why
from tui.frame import Record

if TYPE_CHECKING:
    from tui.poller import Session


class CopyCommands(Asking):
    """The `do_…` methods of compare, back up, trash and checkpoints."""

    # -- compare

    def do_mark(self) -> None:
        pane = self._console.versions_pane
        chosen = pane.selected()
        if chosen is None:
            self._no("there is no version yet: s takes one")
        elif pane.toggle_mark():
            self._no(f"c compares another version with {chosen.get('name')}")
        else:
            self._no("nothing is marked: c compares with the present state")

    def do_compare(self) -> None:
        pane = self._console.versions_pane
        chosen = pane.selected()
        if chosen is None:
            self._no("there is no version yet: s takes one")
            return
        marked, name = pane.marked, str(chosen.get("name"))
        # The older of the two stands at the left; the present state always at the right.
        pair = (name, None) if marked in (None, name) else (str(marked), name)
        if pair[1] is not None and self._age(pair[1]) < self._age(pair[0]):
            pair = (pair[1], pair[0])

        def show(found: Any) -> str:
            view = CompareView(found, self._distance, self._judge, self._compared_item)
            self._console.push_screen(view)
            return ""

        doing = f"comparing {pair[0]} with {pair[1] or 'the present state'}"
        self.ask("compare", show, doing=doing, first=pair[0], second=pair[1])

    def _age(self, name: str) -> int:
        """Where a version stands in the list, the oldest first."""
        names = [version.get("name") for version in self._console.frame.versions]
        return names.index(name) if name in names else len(names)

    def _distance(self, first: str, second: str, then: Any, failed: Any) -> None:
        """Ask how far the weights of two versions lie apart."""
        self.fetch("weights_distance", then, failed, first=first, second=second)

    def _judge(self, first: str, second: str | None, then: Any, failed: Any) -> None:
        """Ask what the evaluation sets say of two models."""
        self.fetch("compare_answers", then, failed, first=first, second=second)

    def _compared_item(self, first: int, second: int, item: str, then: Any, failed: Any) -> None:
        """Read an item that two evaluations asked, whole."""
        self.fetch("compared_item", then, failed, first=first, second=second, item=item)

    # -- copies elsewhere

    def do_backup(self) -> None:
        version = self._console.versions_pane.selected()
        if version is None:
            self._no("there is no version yet: s takes one")
            return
        name = str(version.get("name"))

        def show(targets: Any) -> str:
            found = [one for one in targets if isinstance(one, dict)]
            if not found:
                return (
                    "no backup target is configured: write [backups.NAME] with target ="
                    " a folder or user@host:path into config.toml"
                )
            dialog = BackupDialog(version, found, self._console.frame.now)
            self.dialog(dialog, lambda target: self._back_up(name, target))
            return ""

        self.ask("backup_targets", show, doing="looking at the targets")

    def _back_up(self, name: str, target: str) -> None:
        session = self._console.poller.session

        def far(targets: Any) -> str:
            return next((_far(one) for one in targets if one.get("name") == target), "")

        self.follow(
            lambda: _copied(session, name, target),
            str,
            progress="backup_targets",
            far=far,
            doing=f"copying {name} to {target}",
        )

    # -- the trash, and checkpoints

    def do_trash(self) -> None:
        def show(things: Any) -> str:
            found = [one for one in things if isinstance(one, dict)]
            view = TrashView(found, self._console.frame.now, self._trash)
            self._console.push_screen(view)
            return ""

        self.ask("trash", show, doing="looking into the trash")

    def _trash(self, command: str, name: str | None, then: Any, failed: Any) -> None:
        """Restore or empty, then what is in the trash now and what was done, in words."""
        session = self._console.poller.session

        def work() -> Any:
            answer = session.request(command, name=name)
            return _trashed(command, answer), session.request("trash")

        def done(found: Any) -> str:
            text, things = found
            then([one for one in things if isinstance(one, dict)], text)
            return str(text)

        self.work(
            work, done, refused=lambda error: failed(str(error)), doing="working in the trash"
        )

    def do_checkpoints(self) -> None:
        frame = self._console.frame
        self._console.push_screen(
            ReadingView("Checkpoints on disk", lambda width: checkpoint_lines(frame, width))
        )


def _copied(session: Session, name: str, target: str) -> str:
    """Have the engine copy a version; what came of it in words. Raises Refused with the reason."""
    answer = session.request("backup", target=target, version=name)
    (result,) = answer["results"]
    if result["error"]:
        raise Refused(f"{name} was not copied to {target}: {result['error']}")
    if name not in result["copied"]:
        return f"{target} has a verified copy of {name} already"
    same = ": the same disk, which helps against deletion alone" if result["same_disk"] else ""
    return f"{name} is at {target}, read back and verified{same}"


def _far(one: Record) -> str:
    copying = one.get("copying")
    if not isinstance(copying, dict) or why(copying):
        return ""
    done, of = real(copying.get("copied_bytes")) or 0, real(copying.get("size_bytes"))
    if not of:
        return ""
    far = f"{size(done)} of {size(of)} ({percent(done / of)})"
    return f"copying {copying.get('version')} to {one.get('name')}: {far}"


def _trashed(command: str, answer: Any) -> str:
    if command == "trash_restore":
        return f"{answer.get('restored')} is back from the trash"
    freed = sum(real(one.get("freed_bytes")) or 0 for one in answer)
    names = ", ".join(str(one.get("name")) for one in answer) or "nothing"
    return f"{names} gone for good, {size(freed)} freed"
