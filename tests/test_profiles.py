"""Profiles change rows as they say, alike every time, and never touch a system prompt."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from engine.prepare import profiles
from engine.prepare.template import RowRefused
from queue_store.errors import ConfigError, DataError
from queue_store.rows import Message, Row, prompt_digest
from tests.prepare_model import MARKED, THINKING, chat, prepared, write_rows
from tests.stock_templates import call, row

SYSTEM = ("system", "Be brief.")
EXCHANGE = (("user", "What is 2+2?"), ("assistant", "4"))
ROW = row(1, SYSTEM, *EXCHANGE)


def contents(one: Row) -> list[str]:
    return [turn.content for turn in one.messages or ()]


def emoji_rows(count: int, one: Row = ROW) -> list[Row]:
    return [profiles.EmojiThink().transform(one, index) for index in range(count)]


def test_none_changes_nothing() -> None:
    assert profiles.find("none").transform(ROW, 7) is ROW
    assert profiles.scored(profiles.find("none"), " <<ANS_START>> ") == " <<ANS_START>> "


def test_emoji_think_wraps_half_of_the_rows_and_says_so_in_the_users_turn() -> None:
    profile = profiles.EmojiThink()
    made = emoji_rows(1000)
    wrapped = [one for one in made if one != ROW]
    assert 440 < len(wrapped) < 560
    thinks, stops = Counter[str](), Counter[str]()
    for one in wrapped:
        system, asked, answer = contents(one)
        assert system == "Be brief." and asked.startswith("What is 2+2?\n\nThink first: ")
        first, middle, last = answer.split("\n")
        think = next(emoji for emoji in profile.THINK if first.startswith(emoji))
        stop = next(emoji for emoji in profile.STOP if last.startswith(emoji))
        many, few = first.count(think), last.count(stop)
        assert (first, middle, last) == (think * many, "4", stop * few)
        assert 2 <= many <= 8 and 2 <= few <= 4
        numbers = ("", "", *profile.NUMBERS)
        assert f"{numbers[many]} {think}." in asked and f"{numbers[few]} {stop}." in asked
        assert profile.answer(answer) == "4"
        thinks[think] += 1
        stops[stop] += 1
    assert len(thinks) == len(stops) == len(set(profile.THINK)) == len(set(profile.STOP)) == 10


def test_emoji_think_is_the_same_for_the_same_index_in_every_release() -> None:
    assert emoji_rows(50) == emoji_rows(50)
    wrapped = [index for index, one in enumerate(emoji_rows(10)) if one != ROW]
    assert wrapped == [1, 2, 3, 4, 5, 7, 8]
    assert contents(emoji_rows(10)[1])[2] == "\U0001f9e0" * 4 + "\n4\n" + "\U0001f51a" * 2


def test_emoji_think_strips_the_tags_of_think_blocks_from_every_answer() -> None:
    thinking = row(1, ("user", "q <think>"), ("assistant", "<think>\nso\n</think>\n\nyes"))
    for one in emoji_rows(40, thinking):
        asked, answer = contents(one)
        assert "think>" not in answer and "so" in answer and "yes" in answer
        assert asked.startswith("q <think>")  # what a user writes is the user's


def test_emoji_think_leaves_tool_turns_and_answers_that_nobody_asked_for() -> None:
    turns = (
        Message("assistant", "Hello!"),
        Message("user", "weather?"),
        Message("assistant", "", (call("weather", city="x"),)),
        Message("tool", "rain"),
        Message("assistant", "It rains."),
    )
    made = next(one for one in emoji_rows(50, row(1, *turns)) if one != row(1, *turns))
    texts = contents(made)
    assert texts[0] == "Hello!" and texts[2:4] == ["", "rain"]
    assert "\nIt rains.\n" in texts[4]
    assert made.messages is not None and made.messages[2].tool_calls == turns[2].tool_calls


def test_regime3_wraps_every_answer_and_gives_the_computation_in_its_form() -> None:
    profile = profiles.Regime3()
    system, asked, answer = contents(profile.transform(ROW, 0))
    assert system == "Be brief." and answer == "<<ANS_START>>\n4\n<<ANS_END>>"
    assert asked.startswith("What is 2+2?\n\n") and "<<ANS_START>> and <<ANS_END>>" in asked
    binary = row(1, ("user", "Compute: add(\u2460\u24ea, \u2460)"), ("assistant", "\u2460\u2460"))
    assert "\n\n(add \u2460\u24ea \u2460)\n\n" in contents(profile.transform(binary, 0))[0]
    assert profile.answer("so\n<<ANS_START>>\n4\n<<ANS_END>> more") == "4"
    assert profile.answer("no marks") == "no marks"


def test_text_rows_are_left_alone() -> None:
    text = Row(1, None, "a story")
    for name in profiles.BUILT_IN:
        assert profiles.find(name).transform(text, 0) == text


def test_an_unknown_profile_names_its_neighbour_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r'data\.profile: profile \'emoji_thnk\' is unknown \(did you mean "emoji_think"\? '
        r"known: none, emoji_think, regime3\)",
    ):
        prepared(tmp_path, write_rows(tmp_path / "a.jsonl", [chat("q", "a")]), profile="emoji_thnk")


OWN = """\
import dataclasses
class Shout:
    name = "shout"
    version = "{version}"
    def transform(self, row, index):
        {body}
one = Shout()
number = 5
"""
SHOUTS = """\
turns = [dataclasses.replace(m, content=m.content.upper()) for m in row.messages]
        return dataclasses.replace(row, messages=tuple(turns))"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, version: str = "1") -> None:
    """A package with entry points, as pip leaves it; its module is `own_profile`."""
    import sys

    info = folder / "own_profile-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-profile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[trainctl.profiles]\nshout = own_profile:Shout\nother = own_profile:one\n"
        "number = own_profile:number\nabsent = own_profile_that_is_not:x\n"
    )
    (folder / "own_profile.py").write_text(OWN.format(version=version, body=body))
    monkeypatch.delitem(sys.modules, "own_profile", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))


def test_ones_own_profile_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, SHOUTS)
    found = profiles.find("shout")
    assert contents(profiles.transformed(found, ROW)) == ["BE BRIEF.", "WHAT IS 2+2?", "4"]
    source = write_rows(tmp_path / "a.jsonl", [chat("q one", "an answer")])
    data = prepared(tmp_path, source, profile="shout")
    assert data.rendering["profile"] == "shout" and data.rendering["profile_version"] == "1"
    with pytest.raises(
        ConfigError, match=r'"shout"\? known: none, .*regime3, absent, number, other'
    ):
        profiles.find("shut")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("number", "'number' is none: it needs a name"),
        ("other", "'other' is none: it needs a name"),
        ("absent", "'absent' cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_is_no_profile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    install(tmp_path, monkeypatch, SHOUTS)
    with pytest.raises(ConfigError, match=why):
        profiles.find(name)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise KeyError('level')", r"profile shout fails on the row: KeyError: 'level'"),
        ("return None", "profile shout makes no row of it"),
        ("return dataclasses.replace(row, messages=())", "profile shout leaves nothing of the row"),
        ("return dataclasses.replace(row, messages=None, text='x')", "makes no row of it"),
    ],
)
def test_a_profile_that_fails_on_a_row_is_the_rows_fault_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    install(tmp_path / "site", monkeypatch, body)
    with pytest.raises(RowRefused, match=why):
        profiles.transformed(profiles.find("shout"), ROW)
    source = write_rows(tmp_path / "a.jsonl", [chat("q", "a")])
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{why}"):
        prepared(tmp_path, source, profile="shout")


def test_the_digest_is_of_name_version_and_of_ones_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {profiles.digest(profile) for profile in profiles.BUILT_IN.values()}
    for place, (body, version) in enumerate([(SHOUTS, "1"), (SHOUTS, "2"), ("return row", "1")]):
        install(tmp_path / str(place), monkeypatch, body, version)
        found.add(profiles.digest(profiles.find("shout")))
    assert len(found) == 6


def test_another_version_of_a_profile_is_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "a.jsonl", [chat("q", "a")])
    keys = set()
    for version in ("1", "2"):
        install(tmp_path / version, monkeypatch, SHOUTS, version)
        keys.add(prepared(tmp_path, source, profile="shout").key)
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["emoji_think", "regime3"])
@pytest.mark.parametrize("template", [MARKED, THINKING])
def test_a_file_with_a_profile_prepares_and_its_checks_pass(
    tmp_path: Path, name: str, template: str
) -> None:
    rows = [chat(f"{i}+{i}?", f"It is {2 * i}.", system="Be kind.") for i in range(60)]
    data = prepared(
        tmp_path, write_rows(tmp_path / "a.jsonl", rows), profile=name, template=template
    )
    assert data.rows == 60 and all(c["passed"] for c in data.report["masks"]["checks"])


def test_rows_are_held_out_and_split_by_what_the_file_asks(tmp_path: Path) -> None:
    """A profile writes into the user's turn: an evaluation row must be known all the same."""
    rows = [chat(f"{i}+{i}?", f"It is {2 * i}.") for i in range(20)]
    turns = tuple(Message(m["role"], m["content"]) for m in rows[3]["messages"])
    held = frozenset({prompt_digest(Row(0, turns, None))})
    source = write_rows(tmp_path / "a.jsonl", rows)
    assert prepared(tmp_path, source, profile="regime3", held_out=held).held_out == [4]


def test_the_system_prompt_stands_beside_what_a_profile_asks(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [chat("q", "a"), chat("q", "a", system="mine")])
    data = prepared(tmp_path, source, profile="regime3", system_prompt="ours")
    from engine.prepare.template import ModelText

    tokenizer = ModelText(tmp_path / "model").tokenizer
    text = tokenizer.decode(data.arrays["tokens"].tolist(), skip_special_tokens=False)
    assert [re.findall(r"system\n(\w+)<", text)] == [["ours", "mine"]]
    assert text.count("<<ANS_END>>.<|im_end|>") == 2
