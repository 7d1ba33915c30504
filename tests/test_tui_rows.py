"""The item view: facts, lengths and rows; what trains is told from the rest in every theme."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from queue_store.safe import cell_width
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_rows import LAST, LONG, RowsWorld
from tests.tui_world import unknown
from tui.contrast import contrast
from tui.dialogs.item import ItemView, row_lines
from tui.histogram import bars
from tui.rowtext import ASCII_MARKS, MARKS, MASKED, TRAINED, printed, thinking, visible
from tui.rowtext import lines as drawn
from tui.safe import line_text

HISTOGRAM = {"edges": [0, 50, 100, 150], "counts": [10, 1, 1000]}


def flat(pilot: Any) -> str:
    return " ".join(screen(pilot).split())


async def view(pilot: Any) -> ItemView:
    await until(pilot, lambda: isinstance(pilot.app.screen, ItemView), "the item view opens")
    found: ItemView = pilot.app.screen
    return found


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_the_item_view_tells_what_was_left_out_the_checks_and_the_lengths(
    size: tuple[int, int],
) -> None:
    async with running(console_on(RowsWorld(steps=60)), size) as pilot:
        await pilot.press("enter")
        await view(pilot)
        await until(pilot, lambda: "1 of 2 checks passed" in screen(pilot))
        text = flat(pilot).replace(" │ │ ", " ")
        assert "1 row over 576 tokens, 40 rows in an evaluation set, 2 rows refused" in text
        assert "512, 97% filled" in screen(pilot) and "40% of the tokens" in screen(pilot)
        assert "validates 40 " in text
        await pilot.press("down", "down")
        await until(pilot, lambda: "standard: repetition 3" in screen(pilot))
        assert "content, line 9: a user's turn would train" in screen(pilot)
        await pilot.press("end")
        await until(pilot, lambda: "59-117" in screen(pilot))
        assert "line 12" in screen(pilot) and "repetition: a word 9 times" in screen(pilot)
        assert any("900" in line and "█" in line for line in lines(pilot))
        assert any("max_length 576" in line for line in lines(pilot))


async def test_a_row_shows_what_trains_in_brackets_with_its_pack_and_step() -> None:
    world = RowsWorld(steps=60)
    async with running(console_on(world), NARROW) as pilot:
        await pilot.press("t")
        await view(pilot)
        await until(pilot, lambda: "⟦1 + 2 = 3" in screen(pilot))
        for part in (
            "line 1 · 31 tokens, 12 train",
            "pack 17 of 512 with 3 other rows; trains in step 3 of the item",
            "⟦trains⟧  does not",
            "<|im_start|>user⏎",
            "⟦1 + 2 = 3␉天<|im_end|>⟧⏎",
        ):
            assert part in screen(pilot), part
    assert world.asked == [(1, "next")] and world.log == []


async def test_rows_are_stepped_through_over_blank_lines_to_both_ends() -> None:
    world = RowsWorld(steps=60)
    async with running(console_on(world)) as pilot:
        await pilot.press("enter", "r")
        await until(pilot, lambda: "line 1 ·" in screen(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "this is the first row" in screen(pilot))
        await pilot.press("n")
        await until(pilot, lambda: "line 3 ·" in screen(pilot))
        assert "this is the first row" not in screen(pilot)
        await pilot.press("right")
        await until(pilot, lambda: "line 4 is wrong, it does not train" in screen(pilot))
        assert "messages has no assistant turn" in screen(pilot)
        await pilot.press("left", "left")
        await until(pilot, lambda: "line 1 ·" in screen(pilot))
        await pilot.press("colon", *str(LAST), "enter")
        await until(pilot, lambda: f"line {LAST} ·" in screen(pilot))
        await pilot.press("n")
        await until(pilot, lambda: f"the last row stands on line {LAST}" in screen(pilot))
        assert f"line {LAST} ·" in screen(pilot), "the row that is there stays"
        await pilot.press("colon", *"x1", "enter")
        await until(pilot, lambda: "'x1' is no line number" in screen(pilot))
        await pilot.press("colon", "2", "escape")
        assert isinstance(pilot.app.screen, ItemView), "Esc leaves the field first"
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, ItemView))


async def test_held_down_n_asks_for_one_row_after_the_other_and_ends_where_it_should() -> None:
    world = RowsWorld(steps=60)
    gate, real = threading.Event(), world.do_row

    def slow(**arguments: Any) -> Any:
        gate.wait(120)
        return real(**arguments)

    world.do_row = slow  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("t")
        await view(pilot)
        assert "reading…" in screen(pilot)
        await pilot.press("n", "n", "n", "n", "n", "n")
        gate.set()
        await until(pilot, lambda: "line 7 ·" in screen(pilot))
        # One at a time: the first, and the newest wish.
        assert world.asked == [(1, "next"), (7, "next")]


async def test_the_loop_goes_on_while_a_row_is_read() -> None:
    world = RowsWorld(steps=60)
    gate = threading.Event()
    world.do_row = lambda **_: gate.wait(120) and None  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("t")
        await view(pilot)
        world.train(3)
        await until(pilot, lambda: app.frame.step == 63, "frames come while the row is awaited")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ItemView))
        gate.set()


async def test_a_lost_engine_an_inbox_file_and_an_unprepared_item_are_said_in_words() -> None:
    world = RowsWorld(steps=60)
    world.add_item("new.jsonl", "low", "waiting", id=unknown("waits in the inbox"))
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("down", "enter")
        await view(pilot)
        assert "lengths in tokens: not prepared yet" in screen(pilot)
        await pilot.press("escape", "G", "t")
        await view(pilot)
        assert "once the file is in the queue" in screen(pilot)
        await pilot.press("escape", "g")
        world.lost = "no engine is running for this home"
        await pilot.press("t")
        await view(pilot)
        await until(pilot, lambda: "no engine is running for this home" in screen(pilot))


async def test_a_long_row_scrolls_and_says_where_it_is() -> None:
    async with running(console_on(RowsWorld(steps=60)), NARROW) as pilot:
        await pilot.press("t", "colon", "5", "enter")
        await until(pilot, lambda: "word0" in screen(pilot))
        assert "word399" not in screen(pilot) and "1-" in lines(pilot)[-2]
        await pilot.press("pagedown", "end")
        await until(pilot, lambda: "word399⟦yes⟧" in screen(pilot))
        await pilot.press("g")
        await until(pilot, lambda: "word0" in screen(pilot))


async def test_ascii_draws_no_sign_beyond_ascii_but_the_rows_own_letters() -> None:
    world = RowsWorld(steps=60)
    async with running(console_on(world, configured(ascii=True)), NARROW) as pilot:
        await pilot.press("enter")
        await view(pilot)
        await pilot.press("end")
        assert screen(pilot).isascii() and "###" in screen(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "[+1 + 2 = 3^I天<|im_end|>+]^J" in screen(pilot))
        assert screen(pilot).replace("天", "").isascii()


@pytest.mark.parametrize(
    "theme", ["textual-dark", "textual-light", "nord", "gruvbox", "solarized-light", "dracula"]
)
async def test_trained_and_masked_text_can_be_read_in_every_theme(theme: str) -> None:
    app = console_on(RowsWorld(steps=60), configured(theme=theme))
    async with running(app) as pilot:
        await pilot.press("t")
        item = await view(pilot)
        await until(pilot, lambda: "⟦1 + 2" in screen(pilot))
        styles: dict[str, Any] = {}
        for y in range(item._body.content_size.height):
            for segment in item._body.render_line(y):
                if segment.text.startswith(("⟦1 + 2", "What is")):
                    styles[segment.text[:4]] = segment.style
        trained, masked = styles["⟦1 +"], styles["What"]
        plain = item._body.rich_style
        for style in (trained, masked):
            ground = style.bgcolor.get_truecolor()
            # A theme whose plain text is below the mark (solarized: 4.4) is not made worse.
            least = min(4.5, contrast(plain.color.get_truecolor(), ground))
            assert contrast(style.color.get_truecolor(), ground) >= least
        assert trained.color != masked.color and trained.bold and not masked.bold


def test_lines_keep_every_character_and_fit_the_width() -> None:
    segments = [
        {"text": f"a\n\n{LONG} 天天天", "trained": False},
        {"text": "yes\n", "trained": True},
    ]
    for width in (8, 31, 200):
        found = drawn(segments, width)
        assert all(cell_width(line_text(line)) <= width for line in found)
        text = "".join(line_text(line) for line in found)
        assert text == "a⏎⏎" + f"{LONG} 天天天" + "⟦yes⏎⟧"
        trained = "".join(t for line in found for t, tone in line if tone == TRAINED)
        assert trained == "⟦yes⏎⟧"
        assert {tone for line in found for _, tone in line} == {TRAINED, MASKED}


def test_brackets_and_signs_of_the_text_cannot_pass_for_ours() -> None:
    text = "\x1b[2J\r\n\t\x9b \u202e ⟦trained⟧ [+x+] \x00\u2028\x7f"
    assert visible(text) == "␛[2J␍⏎\n␉\ufffd \ufffd [trained] [+x+] ␀⏎␡"
    ascii = visible(text, ascii=True)
    assert ascii == "^[[2J^M^J\n^I? ? [trained] [ +x+ ] ^@^J^?"
    assert not set(MARKS) & set(visible(text))
    assert not any(mark in ascii for mark in ASCII_MARKS)


def test_what_became_of_thinking_is_told_where_there_is_any() -> None:
    found = {"setting": "template", "answers": 8, "trained": 5, "left_out": 3, "empty_blocks": 2}
    assert thinking(found) == "template: 5 of 8 train, 2 empty blocks added by the template"
    assert thinking({**found, "empty_blocks": 0}) == "template: 5 of 8 train"
    assert thinking({**found, "answers": 0, "empty_blocks": 0}) == "" == thinking(None)


def test_print_marks_by_colour_or_by_brackets() -> None:
    segments = [{"text": "ask", "trained": False}, {"text": "say\x1b[0m", "trained": True}]
    assert printed(segments, colour=False) == "ask⟦say␛[0m⟧"
    assert printed(segments, colour=False, ascii=True) == "ask[+say^[[0m+]"
    assert printed(segments, colour=True) == "\x1b[2mask\x1b[0m\x1b[1;32msay␛[0m\x1b[0m"


def test_bars_are_as_long_as_their_counts_and_none_that_counts_is_empty() -> None:
    found = bars(HISTOGRAM, 60, limit=120)
    assert [line.split()[0] for line in found] == ["0-49", "50-99", "100-149"]
    assert found[2].count("█") > 25 > found[0].count("█")
    assert "▏" in found[1] and all(cell_width(line) <= 60 for line in found)
    assert "◂ max_length 120" in found[2] and "max_length" not in found[0] + found[1]
    ascii = bars(HISTOGRAM, 60, limit=120, ascii=True)
    assert all(line.isascii() for line in ascii) and "#" in ascii[1]
    assert bars({"edges": [], "counts": []}, 60) == [] == bars(unknown("not yet"), 60)


def test_bars_put_neighbours_together_and_lose_no_row() -> None:
    counts = [0, 0, *range(1, 22), 0]
    found = bars({"edges": list(range(0, 250, 10)), "counts": counts}, 80, most=8)
    assert len(found) <= 8
    assert sum(int(line.split()[-1]) for line in found) == sum(counts)
    assert found[0].split()[0] == "20-49", "empty ranges at the ends are left out"


def test_a_row_that_is_kept_for_validation_or_trained_already_says_so() -> None:
    def told(**prepared: Any) -> str:
        base = {"pack": 0, "packs": 2, "rows_in_pack": 1, "part": "train", "times": []}
        row = {"line": 1, "segments": [], "tokens": 3, "trained_tokens": 1, "left_out": ""}
        return "\n".join(
            line_text(line) for line in row_lines({**row, "prepared": {**base, **prepared}}, 80)
        )

    assert "validates, does not train: pack 1 of 2, alone" in told(part="validation")
    times = [
        {"epoch": 1, "step": 2, "trained": True},
        {"epoch": 2, "step": 9, "trained": False},
    ]
    assert "trains in step 9 of the item, epoch 2" in told(times=times)
    assert "trained in 1 epoch" in told(times=times[:1])


async def test_an_item_that_was_never_prepared_shows_rows_with_the_settings_of_now() -> None:
    world = RowsWorld(steps=3)
    world.special[1] = {
        **world.do_row(1, 1, "exact", False),
        "settings": "now",
        "prepared": unknown("the item is not prepared yet"),
        "left_out": "longer than max_length 20",
    }
    async with running(console_on(world)) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: "line 1 ·" in screen(pilot))
        assert "the item is not prepared yet; shown with settings: now's" in screen(pilot)
        assert "left out, it does not train: longer than max_length 20" in screen(pilot)
