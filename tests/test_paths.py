"""Paths as typed in the add dialog: words, completion, globs, and what is wrong with a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tui import paths


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("alpha_1.jsonl", "alpha_2.jsonl", "beta.jsonl", ".hidden.jsonl", "sp ace.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "x.jsonl").write_text("{}\n")
    (tmp_path / "st*r.jsonl").write_text("{}\n")
    return tmp_path


def test_words_are_those_of_a_shell() -> None:
    found = paths.words(r"a b\ c 'd e' \"f\"g '*' h\*?")
    assert [w.text for w in found] == ["a", "b c", "d e", '"f"g', "*", "h*?"]
    assert [w.start for w in found] == [0, 2, 7, 13, 20, 24]
    assert [w.magic for w in found] == [False, False, False, False, False, True]
    assert found[5].pattern == "h[*]?"
    assert paths.words("'open quote") == [paths.Word(0, "open quote", (True,) * 10)]


@pytest.mark.parametrize(
    ("typed", "text", "names"),
    [
        ("b", "beta.jsonl ", ()),
        ("al", "alpha_", ("alpha_1.jsonl", "alpha_2.jsonl")),
        ("alpha_", "alpha_", ("alpha_1.jsonl", "alpha_2.jsonl")),
        ("dat", "data/", ()),
        ("data/de", "data/deep/", ()),
        ("./data/deep/", "./data/deep/x.jsonl ", ()),
        ("sp", r"sp\ ace.jsonl ", ()),
        (r"sp\ a", r"sp\ ace.jsonl ", ()),
        ("'sp a", r"sp\ ace.jsonl ", ()),
        ("st", r"st\*r.jsonl ", ()),
        (".h", ".hidden.jsonl ", ()),
        ("beta.jsonl al", "beta.jsonl alpha_", ("alpha_1.jsonl", "alpha_2.jsonl")),
        ("~", "~/", ()),
    ],
)
def test_tab_completes_like_a_shell(base: Path, typed: str, text: str, names: object) -> None:
    found = paths.complete(typed, str(base))
    assert (found.text, found.names, found.problem) == (text, names, "")


def test_hidden_files_are_offered_only_when_their_dot_is_typed(base: Path) -> None:
    shown = paths.complete("", str(base))
    assert ".hidden.jsonl" not in shown.names and "data/" in shown.names
    assert shown.count == 6


def test_home_and_absolute_paths(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(base))
    assert paths.complete("~/be", "/").text == "~/beta.jsonl "
    assert paths.complete(f"{base}/be", "/").text == f"{base}/beta.jsonl "
    assert paths.expanded("~/beta.jsonl", "/") == [str(base / "beta.jsonl")]


def test_what_cannot_be_completed_says_why(base: Path) -> None:
    assert "begins with zz" in paths.complete("zz", str(base)).problem
    assert "No such file" in paths.complete("none/x", str(base)).problem


def test_a_large_folder_counts_all_and_keeps_a_screenful(tmp_path: Path) -> None:
    for n in range(3000):
        (tmp_path / f"f{n:04d}.jsonl").touch()
    found = paths.complete("f", str(tmp_path))
    assert found.count == 3000 and len(found.names) == paths.SHOWN


def test_several_files_and_globs_are_absolute_and_each_once(base: Path) -> None:
    found = paths.expanded("alpha*.jsonl ./beta.jsonl alpha_1.jsonl", str(base))
    assert [Path(p).name for p in found] == ["alpha_1.jsonl", "alpha_2.jsonl", "beta.jsonl"]
    assert all(Path(p).is_absolute() and "/./" not in p for p in found)
    assert paths.expanded("st*r.jsonl", str(base)) == [str(base / "st*r.jsonl")], "it is there"
    assert paths.expanded(r"al\*", str(base)) == [str(base / "al*")], "quoted, a star is a star"
    with pytest.raises(paths.Wrong, match=r"no file matches z\*"):
        paths.expanded("z*", str(base))
    with pytest.raises(paths.Wrong, match="no file matches data/"):
        paths.expanded("data/*", str(base))
    with pytest.raises(paths.Wrong, match="type the path"):
        paths.expanded("  ", str(base))


def test_what_is_no_file_to_add_is_said(base: Path) -> None:
    assert paths.looked_at([str(base / "beta.jsonl")]) == [("beta.jsonl", 3)]
    os.mkfifo(base / "pipe")
    for name, why in (
        ("none.jsonl", "no such file"),
        ("data", "a folder, not a file"),
        ("pipe", "not a regular file"),
        ("beta.jsonl/x", "Not a directory"),
    ):
        with pytest.raises(paths.Wrong, match=why):
            paths.looked_at([str(base / name)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said(base: Path) -> None:
    (base / "beta.jsonl").chmod(0)
    with pytest.raises(paths.Wrong, match="you may not read it"):
        paths.looked_at([str(base / "beta.jsonl")])
