"""What does a report of many runs cost: seconds to build it, bytes, and seconds until a browser answers?

The runs are made up, in the files that real ones write, with items of each task and a funnel. The page is
built in a process of its own. Chromium then opens it a few times with an empty cache:

    paint        the first words are on the screen
    answers      the script has drawn every section: filters, tables and links work
    interactive  the end of the last task over 50 ms, plotly's start included; a second of silence follows
    filter       from a changed filter to the next frame


    python benchmarks/report_page.py            # 12 runs x 30 cells x 20 tasks, 1,000 items a task
    python benchmarks/report_page.py --tiny     # 2 runs of 3 tasks
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARGUMENTS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()
WATCH = """
window.tasks = [];
new PerformanceObserver((list) => {
  window.tasks.push(...list.getEntries().map((task) => [task.startTime, task.duration]));
}).observe({ type: "longtask", buffered: true });
"""
TIMES = """
() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const answers = performance.getEntriesByName("answers")[0].startTime;
  const lengths = window.tasks.map(([, length]) => length);
  const ends = window.tasks.map(([start, length]) => start + length);
  return { paint, answers, interactive: Math.max(paint, ...ends), longest_task: Math.max(0, ...lengths) };
}
"""
CHOOSE = """
async () => {
  const select = document.getElementById("choose-task"), start = performance.now();
  select.selectedIndex = 1;
  select.dispatchEvent(new Event("change"));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}
"""


def write_runs(root: Path, runs: int, tasks: int, items: int) -> list[str]:
    """Folders of finished runs with 30 cells, items of the whole model and a funnel each."""
    sys.path.insert(0, str(ROOT / "tests" / "shared"))
    from report_runs import write_items_of, write_report_run

    folders = []
    for number in range(runs):
        folder = write_report_run(root / f"run_{number:02}", seed=number, tasks=tasks, gain=0.01 * number)
        write_items_of(folder, items, seed=number)
        folders.append(str(folder))
    return folders


def build(words: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of one `embedtrain-report`, imports included."""
    command = [sys.executable, "-m", "embedtrain.cli.report", *words]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"build_s": wall, "build_cpu_s": cpu}


def open_page(page: Path, times: int) -> dict[str, float]:
    """Medians over fresh browsers, in milliseconds; nothing without chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        print("no chromium here: apt-get install chromium", file=sys.stderr)
        return {}
    seen, chosen = [], []
    with sync_playwright() as started:
        for _ in range(times):
            browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
            tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            tab.add_init_script(WATCH)
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("section#setup", state="attached", timeout=120_000)
            number = -1
            while number != (number := tab.evaluate("window.tasks.length")):
                tab.wait_for_timeout(1000)
            seen.append(tab.evaluate(TIMES))
            chosen.append(tab.evaluate(CHOOSE))
            browser.close()
    medians = {f"{key}_ms": statistics.median(one[key] for one in seen) for key in seen[0]}
    worst = max(one["interactive"] for one in seen)
    return {**medians, "interactive_worst_ms": worst, "filter_ms": statistics.median(chosen)}


def main() -> None:
    """Make runs, build their page, open it, print what it took."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--opened", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the runs and the page, which stay there")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    runs, tasks, items, opened = (
        (2, 3, 50, 1) if given.tiny else (given.runs, given.tasks, given.items, given.opened)
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = given.keep or Path(scratch)
        folders = sorted(map(str, root.glob("runs/*"))) or write_runs(root / "runs", runs, tasks, items)
        found: dict[str, float] = build([*folders, f"output={root / 'page'}"])
        page = root / "page" / "report.html"
        found["bytes"] = page.stat().st_size
        found |= open_page(page, opened)
    for key, value in found.items():
        print(f"{key:22}{value:14,.2f}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
