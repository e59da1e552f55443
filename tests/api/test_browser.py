"""The dealer's page in a real browser: an alert arrives by itself, is acknowledged, and closed."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

pytestmark = pytest.mark.browser
FLAGS = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOTS = os.environ.get("TELLTALE_TEST_SCREENSHOTS")


def chromium() -> str:
    """Return the browser of this machine; without one skip, or fail where it has to be there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium on PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    program = chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        await running.close()


class Tab:
    """A page of the browser that keeps what it complained about: script errors and refusals of the CSP."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


async def open_tab(browser: Any, *, locale: str = "zh-CN", width: int = 1280, **options: Any) -> Tab:
    size = {"width": width, "height": 900}
    context = await browser.new_context(locale=locale, timezone_id="Asia/Shanghai", viewport=size, **options)
    context.set_default_timeout(15_000)
    return Tab(await context.new_page())


async def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def pack(now: datetime) -> list[bytes]:
    """Return an hour of 24 cells, of which number 7 falls behind in the end."""
    rows = []
    for step in range(360):
        cells = [3700 - step // 6 + (i * 7) % 5 for i in range(24)]
        cells[6] -= max(0, step - 200)
        rows.append(b"".join(c.to_bytes(2, "big") for c in cells))
    return rows


async def test_an_alert_arrives_by_itself_and_is_acknowledged_and_closed(
    browser: Any, server: str, world: Any
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    await world.store_reports("D1", pack(now), start=now - timedelta(minutes=60))
    tab = await open_tab(browser)
    page = tab.page
    await page.goto(f"{server}/login?key={world.keys['same']}")
    assert page.url == f"{server}/"
    await page.locator("#live.on").wait_for()
    assert await page.locator("#alerts .row").count() == 1

    evidence = {"cell_voltage_v": 2.61, "limit_important_v": 2.8, "pack_voltage_v": 355.2, "dwell_s": 10.0}
    alert = await world.raise_alert(
        "D1", detector="cell_undervoltage", component="cell:7", severity="important", evidence=evidence,
        happened_at=now - timedelta(minutes=8),
    )  # fmt: skip
    row = page.locator(f"#alert-{alert}")
    await row.wait_for()
    assert "7 号单体" in await row.inner_text()
    assert await page.locator("#alerts .row").first.get_attribute("id") == f"alert-{alert}"
    assert await page.locator("#counts .sev-important b").inner_text() == "1"
    shown = await row.locator("time").first.inner_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\+8", shown)
    await shoot(page, "list-zh-1280")

    await row.click()
    await page.locator("figure.chart canvas").first.wait_for()
    await shoot(page, "alert-zh-1280")
    await page.get_by_role("button", name="接手处理").click()
    await page.locator("#alert .state-acknowledged").wait_for()
    assert page.url == f"{server}/alerts/{alert}"
    await page.get_by_label("故障属实").check()
    await page.get_by_label("备注").fill("7 号单体已复测，安排换模组")
    await page.get_by_role("button", name="关闭提醒").click()
    await page.locator("#alert .state-closed").wait_for()
    await shoot(page, "closed-zh-1280")
    stored = await world.ingest.fetchrow(
        "SELECT state, outcome, note, closed_by FROM alert WHERE id = $1", alert
    )
    assert tuple(stored) == ("closed", "confirmed", "7 号单体已复测，安排换模组", "same")
    assert tab.complaints == []


async def test_the_list_of_a_second_reader_follows_what_the_first_one_does(
    browser: Any, server: str, world: Any
) -> None:
    tab = await open_tab(browser, locale="en-GB")
    await tab.page.goto(f"{server}/login?key={world.keys['quality']}")
    await tab.page.locator("#live.on").wait_for()
    assert await tab.page.locator("#alerts .row").count() == 2
    from telltale.store.alerts import Edit, edit_alert
    from telltale.store.keys import find_caller
    from telltale.store.pool import open_pool

    async with await open_pool(world.urls.api, role_name="api", timeout_s=10) as pool:
        caller = await find_caller(pool, world.keys["same"])
        assert caller is not None
        await edit_alert(pool, caller, Edit(world.alerts["D1"], 1, "no_trouble_found"))
    await tab.page.locator(f"#alert-{world.alerts['D1']}").wait_for(state="detached")
    assert await tab.page.locator("#counts .sev-urgent b").inner_text() == "1"
    assert tab.complaints == []


async def test_a_write_that_fails_is_said_and_a_stale_one_shows_how_the_alert_stands(
    browser: Any, server: str, app: Any, world: Any
) -> None:
    tab = await open_tab(browser, locale="en-GB")
    page, alert = tab.page, world.alerts["D1"]
    await page.goto(f"{server}/login?key={world.keys['same']}")
    await page.goto(f"{server}/alerts/{alert}")
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Acknowledge").click()
    await page.locator("#failed:not([hidden])").wait_for()
    await page.context.set_offline(False)
    admin = await asyncpg.connect(world.urls.admin, timeout=10)  # a change that no event tells of
    await admin.execute("UPDATE telltale.alert SET version = 2, state = 'acknowledged' WHERE id = $1", alert)
    await admin.close()
    await page.get_by_role("button", name="Acknowledge").click()
    await page.get_by_text("Somebody changed this alert meanwhile").wait_for()
    await page.locator("#alert .state-acknowledged").wait_for()


async def test_the_basic_flow_needs_no_script(browser: Any, server: str, world: Any) -> None:
    tab = await open_tab(browser, locale="en-GB", java_script_enabled=False)
    page = tab.page
    await page.goto(server)
    assert page.url.startswith(f"{server}/login")
    await page.get_by_label("Key").fill(world.keys["same"])
    await page.get_by_role("button", name="Sign in").click()
    await page.locator("#alerts a").first.click()
    await page.get_by_role("button", name="Acknowledge").click()
    await page.locator(".state-acknowledged").wait_for()
    await page.get_by_label("Confirmed", exact=True).check()
    await page.get_by_role("button", name="Close the alert").click()
    await page.locator(".state-closed").wait_for()
    assert "UTC+8" in await page.locator("time").first.inner_text()


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_no_page_is_wider_than_the_screen_and_none_breaks_the_content_policy(
    browser: Any, server: str, world: Any, locale: str, width: int
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    await world.store_reports("D1", pack(now), start=now - timedelta(minutes=60))
    for number, severity in enumerate(("watch", "general", "important")):
        await world.raise_alert("D1", detector="dcdc_off", component=f"motor:{number}", severity=severity)
    cell = await world.raise_alert(
        "D1",
        detector="cell_undervoltage",
        component="cell:7",
        severity="important",
        evidence={"cell_voltage_v": 2.61, "limit_important_v": 2.7, "dwell_s": 10.0, "pack_voltage_v": 355.2},
        happened_at=now - timedelta(minutes=8),
    )
    tab = await open_tab(browser, locale=locale, width=width)
    page = tab.page
    pages = {
        "login": "/login",
        "enter": f"/login?key={world.keys['same']}",
        "watch": "/?view=watch",
        "closed": "/?view=closed",
        "alert": f"/alerts/{cell}",
        "vehicle": f"/vehicles/{world.vehicles['D1'][1]}",
    }
    for name, path in pages.items():
        await page.goto(f"{server}{path}")
        await page.wait_for_load_state()
        if name in ("alert", "vehicle"):
            await page.locator("figure.chart canvas").last.wait_for()
            await asyncio.sleep(0.3)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        await shoot(page, f"{name}-{locale[:2]}-{width}")
    assert tab.complaints == []
