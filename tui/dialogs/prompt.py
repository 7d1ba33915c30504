"""The prompt box: ask the model as it stands now, or versions beside it, and read what they say.

What was asked from this console stays, also after the box was closed. The engine answers between
two steps, in its own time, and others answer from a worker: nothing here waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from textual.binding import Binding
from textual.containers import Horizontal
from textual.events import Key, Paste
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from engine.messages import PROMPT_SECONDS
from tui.dialogs.base import Field, field, label
from tui.dialogs.exchange import NOW, Exchange, transcript
from tui.dialogs.whole import WholeView
from tui.frame import Frame
from tui.safe import safe

KEYS = "Enter ask  ^J new line  up/down asked before  PgUp PgDn answers  Tab fields  Esc close"
WAITS = "Esc cancels"
MAX_TOKENS = 256
MOST_MODELS = 8

Ask = Callable[[Exchange, Callable[[], None]], None]
"""Sends an exchange; the function is called in the event loop whenever more of it is there."""


def waits(frame: Frame) -> str:
    """When an answer can come, by what the engine is at."""
    state, phase = frame.state, str(frame.status.get("phase") or "")
    if frame.lost:
        return f"the engine does not answer: {frame.lost}"
    if state == "starting":
        return f"{phase or 'starting'}: answered once the model is loaded"
    if state in ("stopping", "stopped", "failed"):
        return f"the engine is {state}: it answers nothing any more"
    if state == "preparing":
        return f"{phase or 'preparing'}: answered between the rows, preparing waits meanwhile"
    if state == "saving":
        return "saving: answered after it"
    if state == "training":
        most = PROMPT_SECONDS["training"]
        return f"training: answered after the step under way; it then waits {most:.0f} s at most"
    return f"{state or 'connecting'}: answered at once, within {PROMPT_SECONDS['standing']:.0f} s"


class PromptText(TextArea):
    """Lines to type: Enter asks, ctrl+j begins a new line, up and down at the first and the last
    line bring back what was asked before."""

    class Asked(Message):
        """Enter was pressed."""

    class Recalled(Message):
        """What was asked before (-1) or after (1) is wanted."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    async def _on_key(self, event: Key) -> None:
        row = self.cursor_location[0]
        edge = {"up": row == 0, "down": row == self.document.line_count - 1}.get(event.key, False)
        if event.key == "enter":
            self.post_message(self.Asked())
        elif event.key == "ctrl+j":
            self.insert("\n")
        elif edge:
            self.post_message(self.Recalled(-1 if event.key == "up" else 1))
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: Paste) -> None:
        """What is pasted is other people's text: drawn, it must not reach the terminal raw. Between
        its lines terminals send a carriage return, as Enter does."""
        event.stop()
        event.prevent_default()
        lines = event.text.replace("\r\n", "\n").replace("\r", "\n")
        self.replace(safe(lines), *self.selection)


class ModelsField(Field):
    """Names of models, with spaces between; up and down put another one for the last."""

    def __init__(self, known: Callable[[], list[str]], value: str) -> None:
        super().__init__(value, placeholder="now v001 base", id="models", select_on_focus=False)
        self.cursor_blink = False
        self._known = known

    async def _on_key(self, event: Key) -> None:
        if event.key not in ("up", "down"):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()
        *before, last = self.value.split() or [""]
        if last and self.value.endswith(" "):
            before, last = [*before, last], ""
        names = self._known()
        by = 1 if event.key == "down" else -1
        at = names.index(last) + by if last in names else min(0, by)
        self.value = " ".join([*before, names[at % len(names)]])
        self.cursor_position = len(self.value)


class PromptBox(WholeView, inherit_bindings=False):
    """`asked` is what this console has asked, oldest first; it is added to."""

    BINDINGS = [
        Binding("escape,ctrl+c", "leave", show=False),
        Binding("tab", "app.focus_next", show=False),
        Binding("shift+tab", "app.focus_previous", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]
    AUTO_FOCUS = "#prompt"
    keys = KEYS

    def __init__(
        self,
        frame: Callable[[], Frame],
        asked: list[Exchange],
        ask: Ask,
        cancel: Callable[..., Any],
    ) -> None:
        super().__init__("Ask the model as it stands now, or others")
        self._frame = frame
        self._asked = asked
        self._ask = ask
        self._cancel = cancel
        self._at = len(asked)
        """Which of what was asked is in the field; all of them: a new one."""
        self._draft = ""
        self._waited = 0
        self._shows_open = False

    def fields(self) -> Iterable[Widget]:
        last = self._asked[-1] if self._asked else None
        prompt = PromptText(id="prompt", placeholder="a prompt; Enter asks")
        prompt.cursor_blink = False
        prompt.highlight_cursor_line = False
        yield Static(id="state")
        yield prompt
        system = field("system", "as in config.toml", last.system if last else "")
        models = ModelsField(self._models, " ".join(last.models) if last else NOW)
        yield Horizontal(label("System "), system, label(" Models "), models, classes="row")
        tokens = field("tokens", "", str(last.max_tokens if last else MAX_TOKENS))
        heat = field("temperature", "", f"{last.temperature if last else 0:g}")
        fields = (label("Tokens "), tokens, label(" Temperature "), heat)
        yield Horizontal(*fields, classes="row")

    def _models(self) -> list[str]:
        """The names that can be asked, the newest first."""
        versions = [str(one.get("name")) for one in reversed(self._frame().versions)]
        return [NOW, *versions, "base"]

    def begin(self) -> None:
        self._show()
        self.set_interval(1.0, self._tick)

    # -- what is shown

    @property
    def _open(self) -> Exchange | None:
        return self._asked[-1] if self._asked and self._asked[-1].open else None

    def _show(self) -> None:
        """The answers so far, the newest at the end and in sight."""
        shown = list(self._asked)
        self._shows_open = self._open is not None
        self._body.say(lambda width: transcript(shown, width))
        self._body.scroll(1 << 30)
        self._say()

    def _say(self) -> None:
        told = waits(self._frame())
        if self._open is not None:
            told = f"asked, {self._waited} s ago. {told}. {WAITS}"
        if self._note:
            told = self._note
        self.write("state", told, "bold")
        self.foot()

    def foot(self) -> None:
        """The keys: what is noted stands above the prompt."""
        self.write("foot", KEYS, "dim")

    def _tick(self) -> None:
        if self._open is not None:
            self._waited += 1
            self._say()
        elif self._shows_open:
            self._answered()  # what an earlier box had asked: nobody told this one

    # -- asking

    def on_prompt_text_asked(self) -> None:
        text = self.query_one("#prompt", TextArea).text
        if self._open is not None:
            self._warn("one prompt at a time: Esc cancels the one that is asked")
            return
        if not text.strip():
            self._warn("type a prompt first")
            return
        tokens, heat = self._value("tokens"), self._value("temperature")
        if not (tokens.isascii() and tokens.isdigit() and 0 < int(tokens) <= 1_000_000):
            self._warn(f"tokens: {tokens!r} is not a whole number from 1 on", "tokens")
            return
        try:
            temperature = float(heat)
        except ValueError:
            temperature = math.nan
        if not 0 <= temperature <= 10:
            self._warn(f"temperature: {heat!r} is not a number from 0 to 10", "temperature")
            return
        models = tuple(dict.fromkeys(self._value("models").replace(",", " ").split())) or (NOW,)
        if len(models) > MOST_MODELS:
            self._warn(f"at most {MOST_MODELS} models at once", "models")
            return
        system = self.query_one("#system", Input).value
        exchange = Exchange(text, system, int(tokens), temperature, models)
        self._asked.append(exchange)
        self._at, self._draft = len(self._asked), ""
        self._note, self._waited = "", 0
        self.query_one("#prompt", TextArea).load_text("")
        self._ask(exchange, self._more)
        self._show()

    def _more(self) -> None:
        """More of an answer is there, or all of it."""
        if not self.is_attached:
            return
        if self._open is None:
            self._answered()
            return
        at_end = self._body.at_end
        self._body.renew()
        if at_end:
            self._body.scroll(1 << 30)

    def _answered(self) -> None:
        self._note = ""
        self._show()

    def _warn(self, text: str, where: str = "prompt") -> None:
        self._note = text
        self.query_one(f"#{where}").focus()
        self._say()

    def _value(self, id: str) -> str:
        return self.query_one(f"#{id}", Input).value.strip()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter asks in every field."""
        event.stop()
        self.on_prompt_text_asked()

    def on_prompt_text_recalled(self, message: PromptText.Recalled) -> None:
        box = self.query_one("#prompt", TextArea)
        at = max(0, min(len(self._asked), self._at + message.by))
        if at == self._at:
            return
        if self._at == len(self._asked):
            self._draft = box.text
        self._at = at
        box.load_text(self._asked[at].prompt if at < len(self._asked) else self._draft)
        box.move_cursor(box.document.end)

    # -- keys

    def action_leave(self) -> None:
        """Cancel what is asked; with nothing under way, close."""
        waiting = self._open
        if waiting is None or self._note == CANCELLING:
            self.dismiss(None)
            return
        self._cancel(waiting)
        self._note = CANCELLING
        self._say()

    def action_page(self, by: int) -> None:
        self._body.scroll(by * max(1, self._body.content_size.height - 1))


CANCELLING = "cancelling: it ends at the next token (Esc closes)"
