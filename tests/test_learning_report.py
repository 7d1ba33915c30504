"""trainctl report --learning: a history whose story is known, told as text, JSON and a page."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.reading.learning import report
from engine.reading.views import Views
from queue_store import journal
from queue_store.home import Home
from queue_store.metrics import Example
from queue_store.results import Results
from snapshots import labels
from tests.engine_kit import make_home
from tests.results_kit import answer, digest, items, store
from tests.story import Story
from trainctl.commands.report import words
from trainctl.learning_page import page

EVIL = '</td></svg><script src="https://evil.example/x.js">alert(1)</script>\x1b]52;c;eA==\x07'
SIGNS = "123456789"
MAKERS = re.compile(r"https?://([a-z0-9-]+\.)*(google|googleapis|gstatic|gvt1)\.com[/:]")
"""Whom the browser asks by itself, for dictionaries and the like."""


def tell(story: Story) -> None:
    """600 steps of three files. Validation falls until step 300 and rises from there, training
    falls on; a model every hundred steps, of which the one at 300 answers best."""
    for name in ("a.jsonl", "b.jsonl", f"<b onclick=x>{'c' * 5}.jsonl"):
        story.item(name)
        story.claim()
    story.begin()
    draw = random.Random(4)
    names = ("e0", "e1", "e2", "e3")
    story.metrics.set_examples(
        [Example(e, "sums", n, EVIL, "x", "syllo", 1) for n, e in enumerate(names)]
    )
    for number in range(6):
        for _ in range(4):
            first = story.step + 1
            losses = {
                step: 2 * math.exp(-step / 150) + 0.1 + draw.gauss(0, 0.02)
                for step in range(first, first + 25)
            }
            story.train(25, 1 + number // 2, losses)
            gone = story.step / 300
            val = 1 + 1.5 * math.exp(-4 * gone) + 0.5 * max(0.0, gone - 1) + draw.gauss(0, 0.004)
            story.validate({"sums": (val, 900), "words": (val + 0.2, 100)})
        story.sample({e: n <= number for n, e in enumerate(names)} | {"e1": number in (1, 2)})
        point = story.checkpoint(1 + number // 2, digest(SIGNS[number]))
        if number in (2, 5):
            story.version(point, f"v00{1 + number // 3}")


def answered(home: Home) -> None:
    """Of 90 items in three tiers: the base model 9, then ever more until step 300, then fewer."""
    asked = items(90)
    asked[89] = type(asked[89])("q89", 89, [{"role": "user", "content": EVIL}], EVIL, tier="hard")
    with Results(home) as results:
        rights = (9, 30, 45, 80, 60, 50, 40)
        for sign, right in zip("0" + SIGNS, rights, strict=False):
            for name, mark in (("sums", "5"), ("words", "6")):
                words = {"set_digest": digest(mark), "set_name": name, "asked": asked}
                store(results, digest(sign), lambda n, r=right: answer(n, n < r), **words)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def told(home: Home) -> Iterator[Home]:
    story = Story(home)
    tell(story)
    answered(home)
    labels.move_best(story.state, "v001", "v001 is better than base: gained 142", {})
    with story.state.transaction():
        journal.record(story.state, "evaluation.regression", f"v002 is worse {EVIL}", step=600)
    story.close()
    yield home


def read(home: Home) -> Any:
    with Views(home) as views:
        return report(views)


def test_the_report_says_what_happened_with_its_figures(told: Home) -> None:
    found = read(told)
    verdict = found["verdict"]
    assert verdict["verdict"] == "overfitting" and found["step"] == 600
    assert 250 <= verdict["best"]["step"] <= 350 and verdict["gap"]["share"] > 0.5
    assert 0.001 < verdict["noise"] < 0.03
    assert [(m["name"], m["step"]) for m in found["scores"][0]["models"]] == [
        *(("base", 0), ("checkpoint-100-r1", 100), ("checkpoint-200-r1", 200), ("v001", 300)),
        *(("checkpoint-400-r1", 400), ("checkpoint-500-r1", 500), ("v002", 600)),
    ]
    held = found["held"]
    assert [row["right"] for row in held] == [18, 60, 90, 160, 120, 100, 80]
    assert held[3]["sets"] == ["sums", "words"] and held[3]["n"] == 180
    assert held[3]["low"] == pytest.approx(0.8353, abs=1e-3)
    accuracy = verdict["accuracy"]
    assert (accuracy["best_step"], accuracy["as_good_from"]) == (300, 300)
    tiers = found["scores"][0]["models"][3]["tiers"]
    assert {tier: row["n"] for tier, row in tiers.items()} == {"easy": 30, "medium": 30, "hard": 30}
    assert sum(row["right"] for row in tiers.values()) == 80
    hard = [row for row in found["hard"] if row["set"] == "sums"]
    never = {row["item"] for row in hard if row["never"]}
    assert never == {f"q{n}" for n in range(80, 90)}, "80 to 89 were never right"
    assert {"q60", "q75"} <= {row["item"] for row in hard} - never
    assert [row["name"] for row in found["effects"]][:2] == ["a.jsonl", "b.jsonl"]
    assert "no validation before it" in found["effects"][0]["change"]["unknown"]
    assert found["effects"][2]["change"] > 0 and found["effects"][2]["clear"]
    assert found["best"] == "v001"
    assert [event["kind"] for event in found["events"]] == ["best.moved", "evaluation.regression"]
    counts = {key: found["examples"][key] for key in ("learned", "lost", "always", "never")}
    assert counts == {"learned": 2, "lost": 1, "always": 1, "never": 0}


def test_the_text_is_for_a_terminal(told: Home, trainctl) -> None:
    done = trainctl("report", "--learning", home=told)
    assert done.code == 0, done.err
    assert "VERDICT  overfitting: the validation loss was lowest at step" in done.out
    assert "88.9 % (81-94)" in done.out and "2 learned, 1 lost" in done.out
    assert "\x1b" not in done.out and "\x07" not in done.out
    as_json = json.loads(trainctl("report", "--learning", "--json", home=told).out)
    assert as_json["verdict"] == read(told)["verdict"]
    assert trainctl("report", home=told).code == 2


def test_few_figures_and_none_are_said_to_be_so(home: Home) -> None:
    story = Story(home)
    found = read(home)
    assert found["verdict"]["text"] == "0 validations so far, 5 are needed"
    assert found["scores"] == found["hard"] == found["effects"] == []
    assert any("trainctl evaluate" in line for line in words(found))
    assert "Nothing has trained" in page(found, "kit")
    story.item()
    story.claim()
    story.begin()
    for _ in range(4):
        story.train(10)
        story.validate({"sums": (1.0, 10)})
    story.checkpoint()
    found = read(home)
    assert (
        found["verdict"]["text"].startswith("4 validations so far")
        and found["verdict"]["best"]["unknown"]
    )
    page(found, "kit")
    story.close()


def test_validations_of_other_rows_are_not_compared(home: Home) -> None:
    """A set is exchanged at step 60 and the loss jumps: that is neither overfitting nor the file's
    doing."""
    story = Story(home)
    story.item()
    story.item("b.jsonl")
    story.claim()
    story.claim()
    story.begin()
    for number in range(12):
        story.train(10, 1 + number // 6, {story.step + n: 1.0 for n in range(1, 11)})
        changed = number >= 6
        story.validate({"sums": (5.0 if changed else 1.0, 20 if changed else 10)})
    story.checkpoint(2)
    story.close()
    found = read(home)
    assert found["verdict"]["verdict"] == "plateau", found["verdict"]
    assert found["comparable_from"] == 70
    assert found["verdict"]["best"]["val_loss"] == 5.0
    assert "of other rows" in " ".join(words(found))
    b = found["effects"][1]
    assert b["name"] == "b.jsonl" and "are of other rows" in b["change"]["unknown"]


class Tags(HTMLParser):
    """The elements of a page, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.fetching: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        loading = {"src", "href", "srcset", "data", "action", "xlink:href", "background", "poster"}
        self.fetching += [f"{tag} {k}={v}" for k, v in attributes if k in loading]
        self.fetching += [f"{tag} {k}" for k, _ in attributes if k.startswith("on")]


def test_the_page_has_the_charts_and_nothing_that_others_wrote_acts(told: Home) -> None:
    made = page(read(told), f"<i>{EVIL}")
    tags = Tags()
    tags.feed(made)
    assert tags.fetching == []
    assert {"svg", "polyline", "polygon", "table"} <= tags.names
    assert not tags.names & {"script", "img", "iframe", "object", "i", "b onclick"}
    assert "&lt;script src=" in made and "\x1b" not in made and "\x07" not in made
    assert made.count("<svg ") == 5, "loss, by set, all sets, and one each"
    assert "default-src 'none'" in made and "url(" not in made and "@import" not in made
    for shape in re.findall(r'points="([^"]*)"', made):
        assert shape and "nan" not in shape and "inf" not in shape


def test_a_page_is_written_for_its_user_alone_or_the_place_is_named(
    told: Home, trainctl, tmp_path: Path
) -> None:
    done = trainctl("report", "--learning", "--html", "page.html", "--json", home=told)
    assert done.code == 0, done.err
    file = Path(json.loads(done.out)["file"])
    assert file == tmp_path / "page.html" and file.stat().st_mode & 0o777 == 0o600
    missing = trainctl("report", "--learning", "--html", "none/page.html", home=told)
    assert missing.code == 2 and "none/page.html" in missing.err and missing.err.count("\n") == 1
    assert "Traceback" not in missing.err


def browser() -> str:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), "")


needs_browser = pytest.mark.skipif(not browser(), reason="no chromium here")


@needs_browser
def test_a_browser_shows_it_without_a_request_or_an_error(
    told: Home, trainctl, tmp_path: Path
) -> None:
    trainctl("report", "--learning", "--html", "page.html", home=told)
    done, asked = shown(tmp_path)
    assert (tmp_path / "page.png").stat().st_size > 20_000, done
    assert ":CONSOLE" not in done, done
    assert asked == {"/page.html"}


@needs_browser
def test_the_browser_would_tell_of_a_request_and_of_an_error(tmp_path: Path) -> None:
    """What the test above sees nothing of can be seen."""
    (tmp_path / "page.html").write_text(
        '<img src="/other.png"><script>console.error("it fails")</script>'
    )
    done, asked = shown(tmp_path)
    assert "it fails" in done and "/other.png" in asked


def shown(folder: Path) -> tuple[str, set[str]]:
    """page.html of a folder in a browser: what it logged, and what it asked of the server that it
    came from or of any other, but for its makers' services."""
    asked: set[str] = set()

    class Server(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.add(self.path)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    try:
        done = subprocess.run(
            [
                *(browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--enable-logging=stderr", "--v=0", f"--log-net-log={folder / 'net.json'}"),
                *(f"--user-data-dir={folder / 'profile'}", "--window-size=1040,2600"),
                *("--hide-scrollbars", f"--screenshot={folder / 'page.png'}", f"{here}/page.html"),
            ],
            env={**os.environ, "HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    urls = re.findall(r'"url":"(https?://[^"]*)"', (folder / "net.json").read_text())
    assert f"{here}/page.html" in urls, "the log has what was loaded"
    others = {url for url in urls if not url.startswith(here) and not MAKERS.match(url)}
    return done.stderr, (asked | others) - {"/favicon.ico"}  # which no page asks for
