"""The evaluation jobs: what waits, runs and has ended; each one's progress, host and error. One can
be cancelled, and take its turn sooner or later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from textual.binding import Binding

from tui.dialogs.base import Fact
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.item import facts_under
from tui.dialogs.priority import raised
from tui.dialogs.whole import LIST_MOVES, WholeView
from tui.evaluation import OPEN, far
from tui.figures import age, clock_time, count, duration, known, real, short, why
from tui.frame import Frame, Record
from tui.safe import Line, clip, line_text, pad, wrap

Fetch = Callable[..., None]
"""(command, then, failed, **arguments): asks the engine, and ends in the event loop."""

FOLLOW_SECONDS = 1.0
NARROW, ROOMY = 64, 80
"""Columns below which counts are told in short, and from which on priority, reason and the names of
checkpoints have room."""
TONES = {"running": "good", "shipping": "good", "done": "", "failed": "bad", "cancelled": "dim"}
LIST_KEYS = "Enter facts  x cancel  + - priority  Esc close"
FACT_KEYS = "x cancel  + - priority  up/down scroll  Esc back"
EMPTY = (
    "No evaluation job yet. e in the versions makes one of a version; by themselves come those that"
    " [evaluation] in config.toml asks for: after an item, each version, the base model once."
)


class JobsView(WholeView):
    """`frame` gives the newest frame, `fetch` asks the engine."""

    BINDINGS = [
        *LIST_MOVES,
        Binding("enter", "facts", show=False),
        Binding("x", "cancel", show=False),
        Binding("plus", "priority(-1)", show=False),
        Binding("minus", "priority(1)", show=False),
        Binding("escape,q,E", "back", show=False),
    ]

    def __init__(self, frame: Callable[[], Frame], fetch: Fetch) -> None:
        super().__init__("Evaluation jobs")
        self._frame = frame
        self._fetch = fetch
        self._jobs: list[Record] | None = None
        self._problem = ""
        self._job: object = None
        """The job under the cursor; None for the first."""
        self._facts = False
        self._asking = False

    @property
    def keys(self) -> str:  # type: ignore[override]
        return FACT_KEYS if self._facts else LIST_KEYS

    def begin(self) -> None:
        self._body.say(self._lines)
        self._follow()
        self.set_interval(FOLLOW_SECONDS, self._follow)

    def _follow(self) -> None:
        if self._asking:
            return
        self._asking = True
        self._fetch("jobs", self._answered, self._unanswered)

    def _answered(self, found: Any) -> None:
        self._asking = False
        rows = found.get("jobs") if isinstance(found, Mapping) else None
        jobs = [one for one in rows or () if isinstance(one, Mapping)]
        if jobs != self._jobs or self._problem:
            self._jobs, self._problem = jobs, ""
            self._renew()

    def _unanswered(self, reason: str) -> None:
        self._asking = False
        if reason != self._problem:
            self._problem = reason
            self._renew()

    def _renew(self) -> None:
        if self.is_attached:
            self._body.renew()
            self.call_after_refresh(self.foot)

    # -- what is shown

    def _place(self) -> int:
        ids = [job.get("id") for job in self._jobs or ()]
        return ids.index(self._job) if self._job in ids else 0

    def _chosen(self) -> Record | None:
        return self._jobs[self._place()] if self._jobs else None

    def _lines(self, width: int) -> list[Line]:
        lines: list[Line] = [((part, "warn"),) for part in wrap(self._problem, width)]
        lines = lines if self._problem else []
        if self._jobs is None:
            return lines or [(("reading…", "dim"),)]
        chosen, now = self._chosen(), self._frame().now
        if chosen is None:
            return [*lines, *(((part, "dim"),) for part in wrap(EMPTY, width))]
        if self._facts:
            return [*lines, *facts_under(job_facts(chosen, now), width, ascii=self.ascii)]
        lines.append(((_head(width), "dim"),))
        for job in self._jobs:
            text = _row(job, now, width)
            if job is chosen:
                lines.append(((pad(">" + line_text(((text, ""),)), width), "chosen"),))
            else:
                lines.append(((" " + text, TONES.get(str(job.get("state")), "")),))
        return lines

    def action_move(self, by: int) -> None:
        self._note = ""
        if self._facts:
            self.action_scroll(by)
            return
        if not self._jobs:
            return
        at = max(0, min(self._place() + by, len(self._jobs) - 1))
        self._job = self._jobs[at].get("id")
        height, top = self._body.content_size.height, self._body.top
        self._body.renew()
        if height:  # the heading is a line of its own above the rows
            self._body.scroll(max(min(top, at), at + 2 - height) - self._body.top)
        self.call_after_refresh(self.foot)

    def action_turn(self, by: int) -> None:
        if self._facts:
            self.action_page(by)
        else:
            self.action_move(by * max(1, self._body.content_size.height - 1))

    def action_facts(self) -> None:
        chosen = self._chosen()
        if chosen is not None and not self._facts:
            self._job, self._facts, self._note = chosen.get("id"), True, ""
            self.say(self._lines)

    def action_back(self) -> None:
        if not self._facts:
            self.dismiss(None)
            return
        self._facts, self._note = False, ""
        self.say(self._lines)
        self.action_move(0)

    # -- what is done

    def _open(self) -> Record | None:
        """The chosen job, where it has not ended."""
        chosen = self._chosen()
        if chosen is None:
            self.note("there is no job here")
        elif chosen.get("state") not in OPEN:
            self.note(f"evaluation {chosen.get('id')} is {chosen.get('state')} already")
        else:
            return chosen
        return None

    def action_cancel(self) -> None:
        job = self._open()
        if job is None:
            return
        name = f"evaluation {job.get('id')} of {job.get('model')}"
        facts: list[Fact] = [
            ("state", str(job.get("state"))),
            ("so far", far(job) or "nothing was asked yet"),
            "What was answered is kept; e asks for the rest again.",
        ]

        def answered(yes: Any) -> None:
            if yes:
                self._do("cancel_job", f"{name} is cancelled", job=job.get("id"))

        dialog = ConfirmDialog(f"Cancel {name}", facts, "Cancel the job")
        dialog.cancel_text = "Let it go on"
        self.app.push_screen(dialog, answered)

    def action_priority(self, by: int) -> None:
        job = self._open()
        if job is None:
            return
        word = raised(str(job.get("priority")), by)
        if word is None:
            self.note(f"evaluation {job.get('id')} is {job.get('priority')} already")
            return
        told = f"evaluation {job.get('id')} is {word}"
        self._do("job_priority", told, job=job.get("id"), priority=word)

    def _do(self, command: str, told: str, **arguments: Any) -> None:
        def then(_: Any) -> None:
            if self.is_attached:
                self.note(told)
                self._follow()

        def failed(reason: str) -> None:
            if self.is_attached:
                self.note(reason)

        self._fetch(command, then, failed, **arguments)


def _head(width: int) -> str:
    more = f"{'priority':8} {'why':10} " if width >= ROOMY else ""
    name, done = pad("model", _name(width)), pad("done", _done(width), right=True)
    return f" {'id':>4} {name} {'state':10} {done} {more}{'host':8} since about"


def _row(job: Record, now: float, width: int) -> str:
    items = real(job.get("items"))
    tell = short if width < NARROW else count
    done = f"{tell(job.get('answered'))}/{tell(items)}" if items else "–"
    host = job.get("host")
    where = str(host) if known(host) else str(job.get("wanted") or "")
    more = f"{pad(job.get('priority'), 8)} {pad(job.get('reason'), 10)} " if width >= ROOMY else ""
    text = (
        f"{job.get('id')!s:>4} {pad(job.get('model'), _name(width))} {pad(job.get('state'), 10)}"
        f" {pad(done, _done(width), right=True)} {more}{pad(where, 8)} {age(now, _since(job)):>5}"
    )
    return clip(f"{text} {job.get('error') or ''}", width - 1)


def _name(width: int) -> int:
    """Columns of a model's name."""
    return 24 if width >= ROOMY else 12


def _done(width: int) -> int:
    """Columns of how far a job is."""
    return 8 if width < NARROW else 13


def _since(job: Record) -> Any:
    return next((job[key] for key in ("ended", "started") if known(job.get(key))), job["created"])


def job_facts(job: Record, now: float) -> list[Fact]:
    """All about a job."""
    place = f"step {count(job.get('step'))}, branch {job.get('branch')}"
    place = place if real(job.get("step")) is not None else f"? ({why(job.get('step'))})"
    state = str(job.get("state"))
    facts: list[Fact] = [
        ("job", f"{job.get('id')}, {job.get('priority')}, because of: {job.get('reason')}"),
        ("model", f"{job.get('model')}, {place}"),
        ("weights", str(job.get("digest"))),
        ("sets", ", ".join(map(str, job.get("sets") or ()))),
        ("state", " ".join(filter(None, (state, far(job))))),
    ]
    if job.get("error"):
        facts.append(("error", str(job.get("error"))))
    errors = real(job.get("errors"))
    if errors:
        facts.append(("no answer", f"{count(errors)} items, which are no wrong answers"))
    host = str(job["host"]) if known(job.get("host")) else why(job.get("host"))
    wanted = f", asked for on {job.get('wanted')}" if job.get("wanted") else ""
    facts.append(("host", f"{host}{wanted}"))
    for key, name in (("created", "asked for"), ("started", "begun"), ("ended", "ended")):
        at = job.get(key)
        if real(at) is not None:
            facts.append((name, f"{age(now, at)} ago, {clock_time(at, date=True)}"))
    facts.append(("tries", count(job.get("tries"))))
    waits = [("next_try", "next try")] if state == "waiting" else []
    for key, name in [*waits, ("deadline", "deadline")] if state in OPEN else []:
        at = real(job.get(key))
        told = why(job.get(key)) if at is None else f"in {duration(max(0.0, at - now))}"
        facts.append((name, told))
    return facts
