"""The actions on evaluation: have a version evaluated, look at the jobs and at the hosts."""

from __future__ import annotations

from typing import Any

from tui.commands.asking import Asking
from tui.dialogs.confirm import TextDialog
from tui.dialogs.evaluate import EvaluateDialog, no_set
from tui.dialogs.hosts import HostsView
from tui.dialogs.jobs import JobsView


class EvaluatingCommands(Asking):
    """The `do_…` methods of evaluate, jobs and hosts."""

    def do_evaluate(self) -> None:
        version = self._console.versions_pane.selected()
        if version is None:
            self._no("there is no version yet: s takes one")
            return
        name = str(version.get("name"))

        def show(offered: Any) -> str:
            if not offered.get("sets"):
                facts = no_set(str(offered.get("folder")))
                self.dialog(TextDialog("No evaluation set", facts), lambda _: None)
            elif not offered.get("places"):
                return "there is nowhere to evaluate: name a host in [hosts] of config.toml"
            else:
                self.dialog(EvaluateDialog(version, offered), order)
            return ""

        def order(choice: dict[str, Any]) -> None:
            self.ask("evaluate", ordered, doing=f"asking for {name}", model=name, **choice)

        def ordered(job: Any) -> str:
            state = job.get("state")
            return f"evaluation {job.get('id')} of {name} is {state}: {self._keys('jobs')} shows it"

        self.ask("evaluation_sets", show, doing="looking at the sets")

    def do_jobs(self) -> None:
        console = self._console
        console.push_screen(JobsView(lambda: console.frame, self.fetch))

    def do_hosts(self) -> None:
        console = self._console
        console.push_screen(HostsView(lambda: console.frame, self.fetch))

    def _keys(self, action: str) -> str:
        return self._console.keymap.keys_of(action, "versions")[0]
