"""The demo as a visitor has it: two windows at once, the pictures, a holder that is killed, a phone, a keyboard."""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from .conftest import OpenPage

# `make screenshot` has it in the docs.
PICTURES = Path(os.environ.get("TRIO_SESSION_PICTURES", Path(__file__).parents[2] / "build" / "browser"))


def run_race(page: Page) -> tuple[int, int]:
    """Fifty clicks, twice: how many were counted, naively and under the lock."""
    expect(page.locator("#live.on")).to_be_visible()
    page.click("#run")
    verdict = page.locator("#verdict")
    expect(verdict).to_have_text(re.compile(r"naive counted \d+, locked counted \d+"))
    naive, locked = re.findall(r"counted (\d+)", verdict.inner_text())
    return int(naive), int(locked)


def test_two_windows_click_at_once(demo: str, open_page: OpenPage) -> None:
    """Fifty clicks from each at the same time: a hundred are counted."""
    windows = [open_page(demo), open_page(demo)]
    for window in windows:
        expect(window.locator("#live.on")).to_be_visible()
    windows[0].evaluate("fetch('/race', { method: 'POST' })")
    for window in windows:
        window.evaluate(
            """() => {
                const click = () => fetch("/race/locked", { method: "POST" }).then((answer) => answer.ok);
                window.clicks = Promise.all(Array.from({ length: 50 }, click));
            }"""
        )
    for window in windows:
        assert window.evaluate("window.clicks") == [True] * 50
    assert windows[1].evaluate("fetch('/race').then((answer) => answer.json())")["locked"] == 100
    # Each has heard of the other's, too.
    expect(windows[0].locator("#locked .gantt rect.hold")).to_have_count(100)


def test_a_contended_run_is_drawn(demo: str, open_page: OpenPage) -> None:
    """Every click is a bar, in the colour of its process; naive ones are lost, and the plot says how many."""
    page = open_page(demo)
    naive, locked = run_race(page)
    assert 0 < naive < locked == 50
    expect(page.locator("#naive .gantt rect.hold")).to_have_count(50)
    lost = page.locator("#naive .gantt rect.gone").count()
    assert 0 < lost <= 50 - naive
    expect(page.locator("#locked .gantt rect.hold")).to_have_count(50)
    assert page.locator("#locked .gantt path.wait").count() > 25  # six at a time: nearly every one had to wait
    expect(page.locator("#lost .plot")).to_contain_text(f"{50 - naive} lost")
    expect(page.locator("#processes .process", has_text="worker")).to_have_count(2)
    expect(page.locator("#locked .gantt")).to_have_attribute("aria-label", "50 of 50 clicks counted, 0 lost")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.locator("#race").screenshot(path=PICTURES / "fifty-clicks.png")


def test_a_holder_is_killed(demo: str, open_page: OpenPage) -> None:
    """Who waits sees the lease of the dead run out, and comes next; nothing of the dead is stored."""
    page = open_page(demo)
    lanes, now = page.locator("#lease .lanes"), page.locator("#now")
    page.click("#hold")
    expect(now).to_have_text(re.compile(r"^A hold in process \d+ holds the lock; nobody waits\.$"))
    for _ in range(2):
        page.click("#click")
    expect(now).to_contain_text("2 wait")
    page.click("#kill")
    expect(now).to_have_text(re.compile(r"was killed with the lock in its hands; 2 wait until its lease runs out"))
    expect(lanes.locator("rect.lease")).to_have_count(1)
    expect(page.locator("#processes .dead")).to_have_count(1)
    expect(now).to_have_text("The lock is free.")
    expect(lanes.locator("text", has_text="committed")).to_have_count(2)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.locator("#lease").screenshot(path=PICTURES / "killed-holder.png")


def test_a_holder_finishes_or_crashes(demo: str, open_page: OpenPage) -> None:
    """Both are drawn, and each button can be pressed when it makes sense."""
    page = open_page(demo)
    for button, end in (("#finish", "committed"), ("#crash", "rolled back")):
        expect(page.locator(button)).to_be_disabled()
        page.click("#hold")
        expect(page.locator("#hold")).to_be_disabled()
        page.click(button)
        expect(page.locator("#lease .lanes")).to_contain_text(end)
        expect(page.locator("#now")).to_have_text("The lock is free.")


def test_it_works_by_keyboard(demo: str, open_page: OpenPage) -> None:
    """Tab and Enter are enough, and one sees where one is."""
    page = open_page(demo)
    expect(page.locator("#live.on")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "run"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("locked counted 50")


def test_it_fits_a_phone(demo: str, open_page: OpenPage) -> None:
    """Nothing sticks out at 390 pixels, before a run and after it."""
    page = open_page(demo, width=390)
    sticks_out = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(sticks_out)
    run_race(page)
    assert not page.evaluate(sticks_out)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "phone.png", full_page=True)


def test_a_window_that_lost_its_server_says_so(demo: str, open_page: OpenPage) -> None:
    """And connects again by itself when the id has changed."""
    page = open_page(demo)
    expect(page.locator("#live.on")).to_be_visible()
    tag = page.locator("#id").inner_text()
    page.click("#new-id")
    expect(page.locator("#id")).to_contain_text("was")
    assert page.locator("#id").inner_text() != tag
    page.click("#click")
    expect(page.locator("#lease .lanes")).to_contain_text("click")
