"""What the panes share: the frame they show, their border and title, and lists with a cursor."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import (
    Blur,
    Click,
    Focus,
    MouseEvent,
    MouseScrollDown,
    MouseScrollUp,
    Resize,
)
from textual.message import Message

from tui.drawn import Drawn
from tui.frame import Frame
from tui.safe import Line, clip, content, fit, line_text, pad, plain

BORDER = 6
"""Columns of a pane's width that its title cannot have."""


class Pane(Drawn, can_focus=True):
    """A pane shows `self.frame`. `name_of` is its name in the table of actions."""

    name_of = ""
    number = 0

    def __init__(self) -> None:
        super().__init__(id=self.name_of, classes="pane")
        self._title = ""

    def on_mount(self) -> None:
        self.set_title()

    def title(self) -> str:
        """What stands in the border after the pane's number and name."""
        return ""

    def nothing_yet(self) -> str:
        """Why an action that looks at what is shown has nothing to look at, "" where it has."""
        return ""

    def why_not(self, action: str) -> str:
        """Why an action that only looks cannot act here now, "" where it can."""
        return self.nothing_yet()

    def set_title(self) -> None:
        """Write the border's title. A title redraws the border, so only where it changed."""
        rest = self.title()
        title = f"{self.number} {self.name_of}" + (f" · {rest}" if rest else "")
        if self.size.width:  # Textual would cut it with a sign that is not ASCII
            title = clip(title, self.size.width - BORDER)
        if title != self._title:
            self._title = title
            # Textual's annotation says str; Content is what keeps it from being markup.
            drawn = plain(((title, ""),)) if self.screen.has_class("-ascii") else ((title, ""),)
            self.border_title = content(line_text(drawn))

    def show(self, frame: Frame) -> None:
        self.frame = frame
        self.set_title()
        self.redraw()

    def on_resize(self, event: Resize) -> None:
        self.set_title()

    def back(self) -> bool:
        """Esc: take off what lies over the pane. False where nothing does."""
        return False

    class Focused(Message):
        """This pane got the focus."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def on_focus(self, event: Focus) -> None:
        self.redraw()
        self.post_message(self.Focused(self.name_of))

    def on_blur(self, event: Blur) -> None:
        self.redraw()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, "do_down", "do_zoom_out")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, "do_up", "do_zoom_in")

    def _wheel(self, event: MouseEvent, *names: str) -> None:
        """The wheel does what the key for one line (or for the scale) does, under the mouse."""
        for name in names:
            act = getattr(self, name, None)
            if act is not None:
                event.stop()
                act()
                return


class ScrollPane(Pane):
    """A pane with more lines than it has room for, moved by the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_line = 0

    def body(self, width: int) -> list[Line]:
        """All lines, `width` columns wide."""
        return []

    def lines(self, width: int, height: int) -> list[Line]:
        body = self.body(width)
        self.offset_line = max(0, min(self.offset_line, len(body) - height))
        return body[self.offset_line : self.offset_line + height]

    def _scroll(self, to: int) -> None:
        self.offset_line = max(0, to)
        self.redraw()

    def do_down(self) -> None:
        self._scroll(self.offset_line + 1)

    def do_up(self) -> None:
        self._scroll(self.offset_line - 1)

    def do_page_down(self) -> None:
        self._scroll(self.offset_line + max(1, self.content_size.height - 1))

    def do_page_up(self) -> None:
        self._scroll(self.offset_line - max(1, self.content_size.height - 1))

    def do_top(self) -> None:
        self._scroll(0)

    def do_bottom(self) -> None:
        self._scroll(1 << 30)


class ListPane(Pane):
    """Rows with a cursor that stays on its row (by key) whatever moves around it.

    `follows` keeps the cursor on the last row while it is there (a log).
    """

    follows = False

    def __init__(self) -> None:
        super().__init__()
        self.filter = ""
        self.chosen: object = None
        self._top = 0

    # -- what a subclass says

    def keys(self) -> Sequence[object]:
        """The keys of the rows, from the top, before the filter."""
        return ()

    def row(self, key: object, width: int) -> Line:
        """A row without its cursor mark."""
        return ()

    def heading(self, width: int) -> Line:
        """A line above the rows, () for none."""
        return ()

    def empty(self, width: int) -> list[Line]:
        """What to say when there are no rows."""
        return []

    # -- drawing

    def shown(self) -> list[object]:
        """The keys that the filter lets through."""
        keys = list(self.keys())
        if not self.filter:
            return keys
        wanted = self.filter.lower()
        return [key for key in keys if wanted in line_text(self.row(key, 400)).lower()]

    def position(self, keys: Sequence[object]) -> int:
        """Where the cursor is; the last row for a log, else the first, when its row has gone."""
        if self.chosen in keys:
            return list(keys).index(self.chosen)
        return len(keys) - 1 if self.follows else 0

    def lines(self, width: int, height: int) -> list[Line]:
        keys = self.shown()
        if not keys:
            if self.filter and self.keys():
                return [((f"nothing contains {self.filter!r} (Esc shows all)", "dim"),)]
            return self.empty(width)
        heading = self.heading(width - 1) if height >= 5 else ()
        room = height - bool(heading)
        at = self.position(keys)
        self._top = max(0, min(self._top, at, len(keys) - room))
        self._top = max(self._top, at - room + 1)
        result: list[Line] = [((" ", ""), *heading)] if heading else []
        for index in range(self._top, min(len(keys), self._top + room)):
            row = self.row(keys[index], width - 1)
            if index != at:
                result.append(((" ", ""), *row))
            elif self.has_focus:
                result.append(((pad(">" + line_text(fit(row, width - 1)), width), "chosen"),))
            else:
                result.append(((">", "dim"), *row))
        return result

    # -- moving

    def _choose(self, index: int) -> None:
        keys = self.shown()
        if not keys:
            return
        index = max(0, min(index, len(keys) - 1))
        # A log's last row is chosen by choosing none: the cursor goes with what comes.
        self.chosen = None if self.follows and index == len(keys) - 1 else keys[index]
        self.redraw()

    def _move(self, by: int) -> None:
        self._choose(self.position(self.shown()) + by)

    def do_down(self) -> None:
        self._move(1)

    def do_up(self) -> None:
        self._move(-1)

    def do_page_down(self) -> None:
        self._move(max(1, self.content_size.height - 2))

    def do_page_up(self) -> None:
        self._move(-max(1, self.content_size.height - 2))

    def do_top(self) -> None:
        self._choose(0)

    def do_bottom(self) -> None:
        self._choose(1 << 30)

    def set_filter(self, text: str) -> None:
        self.filter = text
        self._top = 0
        self.set_title()
        self.redraw()

    def back(self) -> bool:
        """Give up the filter; whether there was anything to give up (Esc)."""
        if not self.filter:
            return False
        self.set_filter("")
        return True

    def on_click(self, event: Click) -> None:
        inside = event.get_content_offset(self)
        if inside is not None:
            headed = bool(self.heading(20)) and self.content_size.height >= 5
            self._choose(self._top + inside.y - headed)


def words(lines: Sequence[str], tone: str = "dim") -> list[Line]:
    """Lines of text in one tone."""
    return [((line, tone),) for line in lines]


READING = words(["reading…"])
"""What a list says before it knows whether there is anything."""
