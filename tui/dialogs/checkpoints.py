"""The checkpoints on disk, beneath the versions, as lines: the newest first."""

from __future__ import annotations

from collections.abc import Mapping

from tui.figures import age, count, loss, size
from tui.frame import Frame
from tui.safe import Line, wrap

ROOMY = 76
ABOUT = (
    "Retention keeps the newest, the best and those in use; s makes the present state a version,"
    " which stays by its own rules."
)


def checkpoint_lines(frame: Frame, width: int) -> list[Line]:
    """A line each: `=` the head, step, branch, losses, size, age, name."""
    head = frame.status.get("head")
    stands = head.get("checkpoint") if isinstance(head, Mapping) else None
    roomy = width >= ROOMY
    branch = f" {'branch':>6}" if roomy else ""
    sizes = f" {'size':>7}" if roomy else ""
    lines: list[Line] = [
        ((f"  {'step':>9}{branch} {'loss':>7} {'val':>7}{sizes} {'age':>4} name", "dim"),)
    ]
    for row in reversed(list(frame.checkpoints)):
        mine = row.get("name") == stands
        text = f"{'=' if mine else ' '} {count(row.get('step')):>9}"
        text += f" {row.get('branch')!s:>6}" if roomy else ""
        text += f" {loss(row.get('loss')):>7} {loss(row.get('val_loss')):>7}"
        text += f" {size(row.get('size_bytes')):>7}" if roomy else ""
        text += f" {age(frame.now, row.get('created')):>4} {row.get('name')}"
        gone = row.get("complete") is False
        lines.append(((text + (" INCOMPLETE" if gone else ""), "bad" if gone else ""),))
    if len(lines) == 1:
        lines = [(("No checkpoint yet: the first is made at training.save_steps.", "dim"),)]
    else:
        lines.append((("= training stands on it (the head)", "dim"),))
    return [*lines, (), *(((part, "dim"),) for part in wrap(ABOUT, width))]
