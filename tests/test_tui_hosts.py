"""Evaluation hosts in the console: what they have, and keys that are trusted on purpose alone."""

from __future__ import annotations

import threading

import pytest
from textual.widgets import Button

from tests.test_tui_compare import at
from tests.test_tui_dialogs import commands
from tests.test_tui_versions import branched
from tests.tui_evaluating_kit import BAD, SIZES, at_work, foot, whole
from tests.tui_pilot import (
    configured,
    console_on,
    go_to,
    lines,
    push,
    running,
    screen,
    until,
)
from tui.dialogs.hosts import HostsView
from tui.dialogs.trust import ChangedKeyDialog, NewKeyDialog


@pytest.fixture(autouse=True)
def followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that follow look more often than a person needs."""
    for module in ("jobs", "hosts"):
        monkeypatch.setattr(f"tui.dialogs.{module}.FOLLOW_SECONDS", 0.1)


@pytest.mark.parametrize("size", SIZES)
async def test_a_host_is_asked_what_it_has(size: tuple[int, int]) -> None:
    world = at_work()
    world.looks["atlas"] = "not reached: Connection refused"
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        await at(pilot, HostsView, "5", "H")
        whole(pilot)
        shown = screen(pilot)
        assert "titan" in shown and "busy" in shown and "atlas" in shown and "RTX 3090" in shown
        world.reads = threading.Event()
        await pilot.press("r")
        await until(pilot, lambda: foot(pilot).startswith("asking titan"))
        await pilot.press("down", "t")
        await until(pilot, lambda: foot(pilot).startswith("asking titan"), "one wish at a time")
        world.reads.set()
        await until(pilot, lambda: not foot(pilot).startswith("asking"))
        await pilot.press("up")
        seen = screen(pilot)
        for _ in range(3):
            await pilot.press("pagedown")
            await pilot.pause()
            seen += screen(pilot)
        for part in ("410 GB free", "v001, 12 MB, used 1h ago", "torch 2.4.0", "plain"):
            assert part in " ".join(seen.split()), part
        await pilot.press("down", "r")
        await until(pilot, lambda: "Connection refused" in foot(pilot))
        world.hosts[0]["gpus"][0]["utilization"] = 97.0
        world.hosts[0] = dict(world.hosts[0])
        await pilot.press("up")
        await until(pilot, lambda: "97%" in screen(pilot), "it follows")
    assert commands(world) == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_new_key_is_shown_and_trusted_only_by_its_button(size: tuple[int, int]) -> None:
    world = at_work()
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        view = await at(pilot, HostsView, "3", "H")
        await at(pilot, NewKeyDialog, "t")
        shown = "".join("".join(line.split()) for line in lines(pilot)).replace("|", "")
        assert "SHA256:Ab9+Ab9+" in shown and "(ED25519)" in shown
        assert app.focused is not None and app.focused.id == "cancel"
        whole(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is view)
        assert "nothing was written" in foot(pilot) and world.trusted == []
        await at(pilot, NewKeyDialog, "t")
        await push(pilot, "#accept")
        await until(pilot, lambda: "is trusted from now on" in foot(pilot))
        assert world.trusted == [("titan", "SHA256:" + "Ab9+" * 10 + "xyz")]
        world.keys["titan"] = {"known": True}
        await pilot.press("t")
        await until(pilot, lambda: "is known already" in foot(pilot))


@pytest.mark.parametrize("size", SIZES)
async def test_a_changed_key_is_told_as_such_and_no_key_alone_trusts_it(
    size: tuple[int, int],
) -> None:
    world = at_work()
    world.keys["titan"] = {"changed": True}
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        view = await at(pilot, HostsView, "5", "H")
        dialog = await at(pilot, ChangedKeyDialog, "t")
        shown = " ".join(screen(pilot).split())
        assert "The key of titan has CHANGED" in shown and "ANOTHER KEY OF THIS HOST" in shown
        whole(pilot)
        accept = dialog.query_one("#accept", Button)
        assert accept.disabled and dialog.result("accept") is None
        await pilot.press("y", "space", "enter", "enter")  # the field has the focus
        assert app.screen is dialog and app.focused is dialog.query_one("#name")
        assert accept.disabled
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is view)
        assert world.trusted == []
        dialog = await at(pilot, ChangedKeyDialog, "t")
        await go_to(pilot, "#name")
        await pilot.press(*"atlas")
        assert dialog.query_one("#accept", Button).disabled
        dialog.query_one("#name").value = "titan"
        await until(pilot, lambda: not dialog.query_one("#accept", Button).disabled)
        await push(pilot, "#accept")
        await until(pilot, lambda: "is trusted from now on" in foot(pilot))
    assert [host for host, _ in world.trusted] == ["titan"]


async def test_a_key_that_changes_between_the_two_looks_is_not_trusted() -> None:
    world = at_work()
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, HostsView, "5", "H")
        await at(pilot, NewKeyDialog, "t")
        world.keys["titan"] = {"fingerprint": "SHA256:other"}
        await push(pilot, "#accept")
        await until(pilot, lambda: "now shows the key SHA256:other" in screen(pilot))
    assert world.trusted == []


async def test_without_hosts_it_says_how_to_name_one_and_this_machine_needs_no_key() -> None:
    world = branched()
    world.hosts = []
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, HostsView, "5", "H")
        assert "write [hosts.NAME]" in screen(pilot)
        await pilot.press("r", "t", "down")
        await until(pilot, lambda: "there is no host here" in foot(pilot))
        world.hosts = [world.host("local")]
        await until(pilot, lambda: ">local" in screen(pilot))
        await pilot.press("t")
        await until(pilot, lambda: "needs no key" in foot(pilot))
        await pilot.press("r")
        await until(pilot, lambda: "the meters tell" in foot(pilot))


async def test_what_a_host_calls_itself_is_text() -> None:
    world = branched()
    host = world.host("titan", "unreachable", error=BAD)
    host["gpus"][0]["name"] = BAD
    world.hosts = [host]
    world.looks["titan"] = BAD
    app = console_on(world, configured())
    async with running(app) as pilot:
        await at(pilot, HostsView, "3", "H")
        await pilot.press("r")
        await until(pilot, lambda: "asked" in screen(pilot))
        assert "[red]x[/nope]" in screen(pilot)
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(screen(pilot))
