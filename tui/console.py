"""The console: the screen of six panes, its keys, and what it does with a frame.

It asks through a session and reads through views, in threads; the engine never waits for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.events import Key, Resize
from textual.filter import LineFilter
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from queue_store.config import Config
from queue_store.errors import TrainctlError
from tui.actions import LISTS, PANES, Action, Keymap, key_label
from tui.bars import Clicked, Footer, Header, HintLine, MeterStrip, Tabs
from tui.bell import Bell
from tui.dialogs.base import field
from tui.dialogs.help import ActionList
from tui.drawn import Drawn
from tui.filters import AsciiFilter, ReadableFilter
from tui.firstrun import FirstRun, Shown
from tui.frame import CurveAim, Frame
from tui.hints import Hushed
from tui.leaving import Leaving
from tui.panes.base import ListPane, Pane
from tui.panes.curves import CurvesPane
from tui.panes.events import EventsPane
from tui.panes.meters import MetersPane
from tui.panes.queue import QueuePane
from tui.panes.samples import SamplesPane
from tui.panes.versions import VersionsPane
from tui.poller import Poller, Reader, Session
from tui.themes import fitting
from tui.toosmall import keep_in_front

if TYPE_CHECKING:
    from tui.commands import Commands

WIDE = (110, 30)
HUGE = 170
MESSAGE_SECONDS = 8.0


class FrameReady(Message):
    """The poller has a frame; only the newest is shown."""


class Later(Message):
    """Something that a thread wants done in the event loop."""

    def __init__(self, job: Callable[[], None]) -> None:
        super().__init__()
        self.job = job


class MainScreen(Screen[None], inherit_bindings=False):
    """The screen of panes. Its keys are the table's alone."""


class Console(Leaving, inherit_bindings=False):
    """`leave` is called in a thread with "handover" or "stop" before the console closes, where the
    engine is in this process; when it raises, the console stays and shows why. `readonly`: no
    action that changes anything is carried out. `views` is the store's reader, or makes it once the
    first frame is shown. `inbox` is the path to name to a newcomer."""

    CSS_PATH = "style.tcss"
    TITLE = "trainctl"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    BINDINGS = [Binding("ctrl+c", "leave", show=False, priority=True)]

    def __init__(
        self,
        config: Config,
        session: Session,
        views: Callable[[], Reader] | Reader,
        *,
        leave: Callable[[str], None],
        reconnect: Callable[[], Session] | None = None,
        clock: Callable[[], float] = time.time,
        readonly: bool = False,
        inbox: str = "inbox",
    ) -> None:
        super().__init__()
        self.readonly = readonly
        self.keymap = Keymap(config.console.keys)
        self.frame = Frame()
        self.preempt = config.queue.preempt
        self.trash_days = config.snapshots.trash_days
        self.left = ""
        self._leave = leave
        self._local = session.local
        self._theme_wanted = config.console.theme
        self._ascii = config.console.ascii
        self._last_filters = (ReadableFilter(), AsciiFilter(self._ascii))
        self._zoomed = False
        self.pane_name = PANES[0]
        self._message_until = 0.0
        self.poller = Poller(session, views, self._publish, reconnect=reconnect, clock=clock)
        self.queue_pane = QueuePane(self._key_of("add"))
        self.curves_pane = CurvesPane(self._aim_curves, ascii=self._ascii)
        self.samples_pane = SamplesPane(self._aim_samples)
        self.versions_pane = VersionsPane(self._key_of("snapshot"))
        self.events_pane = EventsPane(self._read_store)
        self.panes: dict[str, Pane] = {
            pane.name_of: pane
            for pane in (
                self.queue_pane,
                self.curves_pane,
                MetersPane(),
                self.samples_pane,
                self.versions_pane,
                self.events_pane,
            )
        }
        self.hushed = Hushed()
        self._bars = (
            Header(readonly=readonly),
            MeterStrip(),
            HintLine(self.keymap, self.hushed, readonly=readonly),
        )
        self._bell = Bell() if config.console.bell else None
        self._first_run = FirstRun(self.keymap, inbox, readonly=readonly)
        self.first = Shown(self._show_first)
        self._tabs = Tabs()
        self._footer = Footer(self.keymap, readonly=readonly)

    def _key_of(self, action: str) -> str:
        """The key of an action, "" where this console only looks."""
        return "" if self.readonly else key_label(self.keymap.by_id[action])

    # -- the screen

    def compose(self) -> ComposeResult:
        header, strip, hint = self._bars
        yield header
        yield self._tabs
        yield Container(self._first_run, *self.panes.values(), id="body")
        yield strip
        yield field("filter", "show lines with …")
        yield hint
        yield self._footer

    def get_default_screen(self) -> Screen[Any]:
        return MainScreen(id="_default", classes="-ascii" if self._ascii else "")

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *self._last_filters]

    def on_mount(self) -> None:
        if self.left:
            self.exit(0)  # a signal came before there was an application to tell
        colors = self.console.color_system
        self.theme = fitting(self._theme_wanted, self.available_themes, colors) or self.theme
        self._focus_pane(PANES[0])
        self._fold(*self.size)
        self.screen_change_signal.subscribe(self, lambda _: keep_in_front(self, *self.size))
        self.set_interval(1.0, self._tidy)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """The first frame is on the screen: ask and read, and load what the keys will need."""
        self.poller.start()
        _ = self._commands

    @cached_property
    def _commands(self) -> Commands:
        from tui.commands import Commands  # with all dialogs: not before the first frame

        return Commands(self)

    def on_unmount(self) -> None:
        self.poller.stop()

    def on_resize(self, event: Resize) -> None:
        self._fold(event.size.width, event.size.height)

    def _fold(self, width: int, height: int) -> None:
        """All panes, one pane, or nothing at all, by the room there is."""
        base = self._base()
        wide = width >= WIDE[0] and height >= WIDE[1]
        base.set_class(wide, "-wide")
        base.set_class(width >= HUGE, "-huge")
        base.set_class(not wide or self._zoomed, "-single")
        keep_in_front(self, width, height)

    def _focus_pane(self, name: str) -> None:
        self.pane_name = name
        for pane in self.panes.values():
            pane.set_class(pane.name_of == name, "-shown")
        self._tabs.choose(name)
        self._footer.choose(name)
        self._bars[2].choose(name)
        self._base().set_focus(self.panes[name])  # at once: the next key may wait already

    @on(Pane.Focused)
    def _pane_focused(self, message: Pane.Focused) -> None:
        """A pane got the focus by a click, and has not lost it since."""
        pane = self.panes.get(message.name)
        if pane is not None and pane is self.focused and message.name != self.pane_name:
            self._focus_pane(message.name)

    # -- frames

    def _publish(self, frame: Frame) -> None:
        self.post_message(FrameReady())

    def later(self, job: Callable[[], None]) -> None:
        """Do `job` in the event loop; from any thread."""
        self.post_message(Later(job))

    @on(Later)
    def _do_later(self, message: Later) -> None:
        message.job()

    @on(FrameReady)
    def _show(self) -> None:
        frame = self.poller.frame
        widgets = (*self._bars, self._footer, *self.panes.values())
        if frame is self.frame or not all(widget.is_attached for widget in widgets):
            return  # nothing new, or the console is being left
        self.frame = frame
        self._first_run.show(frame)
        self.first.see(frame)
        if self._bell is not None and self._bell.rings(frame):
            self.bell()
        for widget in widgets:
            if not isinstance(widget, HintLine):
                widget.set_dimmed(bool(frame.lost))
            widget.show(frame)

    def refresh_hint(self) -> None:
        """Draw the hint line again: a hint was hushed."""
        self._bars[2].redraw()

    def _show_first(self, up: bool) -> None:
        """Show what to do first, in the place of the panes; or the panes again."""
        self._base().set_class(up, "-first")
        if not up and self.screen is self._base():
            self._focus_pane(self.pane_name)

    def say(self, text: str, tone: str = "") -> None:
        """One line for a person, for some seconds."""
        self._message_until = time.monotonic() + MESSAGE_SECONDS
        self._bars[2].say(text, tone)

    def _tidy(self) -> None:
        if self._bars[2].message[0] and time.monotonic() > self._message_until:
            self._bars[2].say("")

    def _aim_curves(self, curves: CurveAim) -> None:
        self.poller.aim(replace(self.poller.want, curves=curves))

    def _aim_samples(self, step: int | None) -> None:
        self.poller.aim(replace(self.poller.want, sample_step=step))

    def _read_store(
        self,
        job: Callable[[Reader], Any],
        then: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """Read the store on the poller's thread; `then` or `failed` runs in the event loop."""

        def read(views: Reader) -> None:
            try:
                result = job(views)
            except (TrainctlError, sqlite3.Error, OSError) as error:
                why = str(error)
                self.later(lambda: failed(why))
            else:
                self.later(lambda: then(result))

        self.poller.look(read)

    # -- keys

    def on_key(self, event: Key) -> None:
        if self.screen is not self._base() or self.left:
            return  # once it is left, keys that still wait in the queue mean nothing
        if isinstance(self.focused, Input):
            if event.key == "escape":
                self._filter_typed(Input.Changed(self.focused, ""))
                self._close_filter()
            return
        action = self.keymap.pressed(self.pane_name, event.key, event.character)
        if action is not None:
            event.stop()
            event.prevent_default()
            self.perform(action)

    @on(Clicked)
    def _clicked(self, message: Clicked) -> None:
        if not self.left:
            self.perform(self.keymap.by_id[message.action])

    def perform(self, action: Action) -> None:
        """Do what the action says, where it makes sense now; else say why not."""
        if action.changes and self.readonly:
            leave = key_label(self.keymap.by_id["leave"])
            mend = f"leave ({leave}) and start trainctl without --readonly"
            self.say(f"read-only, so no {action.label}: {mend}", "warn")
            return
        if action.engine and self.frame.lost:
            self.say(f"{action.label} needs the engine, which does not answer", "warn")
            return
        if action.where and self.pane_name not in action.where:
            self._focus_pane(action.where[0])
        name = f"do_{action.id}"
        for place in (self.panes[self.pane_name], self._commands, self):
            method = getattr(place, name, None)
            if method is not None:
                pane = self.panes[self.pane_name]
                if place is pane:
                    self.first.dismiss()
                    reason = pane.why_not(action.id)
                    if action.where and not action.engine and reason:
                        self.say(f"{action.label}: {reason}")
                        return
                method()
                return
        self.first.dismiss()
        if action.id.startswith("pane_"):
            self._focus_pane(PANES[int(action.id[5:]) - 1])
        else:
            self.say(f"{action.label}: there are no lines to move over in the {self.pane_name}")

    def do_next(self) -> None:
        self.first.dismiss()
        self._focus_pane(PANES[(PANES.index(self.pane_name) + 1) % len(PANES)])

    def do_previous(self) -> None:
        self.first.dismiss()
        self._focus_pane(PANES[PANES.index(self.pane_name) - 1])

    def do_zoom(self) -> None:
        if not self._zoomed and not self._base().has_class("-wide"):
            self.say(f"the {self.pane_name} has the whole screen already")
            return
        self._zoomed = not self._zoomed
        self._fold(*self.size)

    def do_redraw(self) -> None:
        for widget in self._base().query(Drawn):
            widget.redraw_all()
        self.screen.refresh(layout=True)

    def do_help(self) -> None:
        self.push_screen(ActionList(self.keymap, self.pane_name, "Keys"), self._chosen)

    def do_palette(self) -> None:
        self.push_screen(ActionList(self.keymap, self.pane_name, "Run a command"), self._chosen)

    def _chosen(self, action: str | None) -> None:
        if action is not None:
            self.perform(self.keymap.by_id[action])

    def do_filter(self) -> None:
        pane = self.panes[self.pane_name]
        box = self.query_one("#filter", Input)
        if isinstance(pane, ListPane) and self.pane_name in LISTS:
            box.value = pane.filter
            self._base().add_class("-filtering")
            box.focus()

    def do_back(self) -> None:
        pane = self.panes[self.pane_name]
        if self.first.dismiss() or pane.back():
            return
        if self._zoomed:
            self.do_zoom()
        elif self._bars[2].message[0]:
            self._bars[2].say("")

    @on(Input.Changed, "#filter")
    def _filter_typed(self, event: Input.Changed) -> None:
        pane = self.panes[self.pane_name]
        if isinstance(pane, ListPane):
            pane.set_filter(event.value)

    @on(Input.Submitted, "#filter")
    def _close_filter(self) -> None:
        self._base().remove_class("-filtering")
        self._focus_pane(self.pane_name)
