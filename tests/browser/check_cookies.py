"""The cookie as a browser takes it."""

from __future__ import annotations

import time

from playwright.sync_api import BrowserContext, expect

from .conftest import OpenPage


def test_the_cookie_is_as_tight_as_it_can_be(demo: str, context: BrowserContext, open_page: OpenPage) -> None:
    """No script can read it, no other site can have it sent along with a form, and it ends with the session."""
    page = open_page(demo)
    expect(page.locator("#visits")).to_have_text("1")
    (cookie,) = context.cookies()
    assert cookie.get("name") == "trio_session"
    assert cookie.get("httpOnly") is True
    assert cookie.get("sameSite") == "Lax"
    assert cookie.get("secure") is False
    assert cookie.get("path") == "/"
    assert cookie.get("domain") == "127.0.0.1"
    assert 7000 < cookie.get("expires", 0) - time.time() <= 7200
    assert page.evaluate("document.cookie") == ""
    assert str(cookie.get("value")) not in page.content()


def test_a_new_id_is_a_new_cookie(demo: str, context: BrowserContext, open_page: OpenPage) -> None:
    """The old one is overwritten, not joined by another."""
    page = open_page(demo)
    expect(page.locator("#visits")).to_have_text("1")
    (before,) = context.cookies()
    page.click("#new-id")
    expect(page.locator("#id")).to_contain_text("was")
    (after,) = context.cookies()
    assert after.get("value") != before.get("value")


def test_logging_out_removes_it(demo: str, context: BrowserContext, open_page: OpenPage) -> None:
    """The browser forgets it, and the next visit is a first one."""
    page = open_page(demo)
    page.reload()
    expect(page.locator("#visits")).to_have_text("2")
    page.click("#log-out")
    expect(page.locator("#visits")).to_have_text("0")
    assert context.cookies() == []
    page.reload()
    expect(page.locator("#visits")).to_have_text("1")


def test_over_tls_it_belongs_to_the_host_alone(secure_site: str, context: BrowserContext, open_page: OpenPage) -> None:
    """`__Host-`: the browser itself sees to it that no other host, path or plain connection has had a hand in it."""
    page = open_page(secure_site)
    page.reload()
    expect(page.locator("#visits")).to_have_text("2")
    (cookie,) = context.cookies()
    assert cookie.get("name") == "__Host-trio_session"
    assert cookie.get("secure") is True
    assert cookie.get("httpOnly") is True
    assert cookie.get("path") == "/"
    page.goto(f"{secure_site}/leave")
    assert context.cookies() == []
    page.goto(secure_site)
    expect(page.locator("#visits")).to_have_text("1")
