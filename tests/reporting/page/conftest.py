"""Pages of made-up runs, and the browser that shows them."""

import shutil

import pytest
from report_runs import write_items_of, write_report_run

from embedtrain.run.report.page import write_report
from embedtrain.settings.commands import ReportSettings

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Three finished runs of eight tasks; the second is the best."""
    root = tmp_path_factory.mktemp("runs")
    gains = {"small": 0.02, "best": 0.08, "third": 0.05}
    for seed, (name, gain) in enumerate(gains.items()):
        write_report_run(root / name, seed=seed, gain=gain)
        write_items_of(root / name, 80, seed)
    return [root / name for name in gains]


@pytest.fixture(scope="session")
def page_file(plotly, tmp_path_factory):
    """(folders) -> the file of their page."""

    def write(*folders):
        out = tmp_path_factory.mktemp("pages")
        return write_report(ReportSettings(runs=list(map(str, folders)), output=str(out), resamples=200)).page

    return write


@pytest.fixture(scope="module")
def browser(plotly):
    """The chromium of the system; it ends with its module, since its event loop would fail others."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


class Shown:
    """A page in a tab, and what it said and asked for."""

    def __init__(self, browser, address, width=1280, theme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(90_000)  # two busy cores
        self.complaints, self.requests = [], []
        self.tab.on(
            "console", lambda said: self.complaints.append(said.text) if said.type == "error" else None
        )
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda asked: self.requests.append(asked.url))
        self.tab.goto(address)
        self.tab.wait_for_selector("section#setup", state="attached")
        while not self.tab.evaluate("'Plotly' in window"):  # no `eval`, which it forbids
            self.tab.wait_for_timeout(50)

    def all_plots(self):
        """Draw what is further down too."""
        self.tab.evaluate("for (const host of [...waiting.keys()]) drawNow(host)")
        return self.tab.locator(".plot").count()

    def close(self):
        self.context.close()


@pytest.fixture
def show(browser):
    """(file or address, width, theme) -> a tab with it."""
    tabs = []

    def open_tab(place, **more):
        address = place if isinstance(place, str) else place.resolve().as_uri()
        tabs.append(Shown(browser, address, **more))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()
