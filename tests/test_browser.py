"""The pages in a browser: no error, no horizontal scroll, toggles that work, light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from tests.test_report import page_of, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--headless --no-sandbox --disable-gpu --dump-dom --virtual-time-budget=60000".split()

# It runs before the page's own script, waits for the first chart, and presses its buttons.
PROBE = """<script>
const errors = [];
for (const kind of ["error", "unhandledrejection"])
  addEventListener(kind, (event) => errors.push(String(event.message ?? event.reason)));
console.error = (...words) => errors.push(words.join(" "));
addEventListener("load", async () => {
  const pause = () => new Promise((then) => setTimeout(then, 20));
  const until = async (ready) => { while (!ready()) await pause(); };
  const chart = document.querySelector(".chart:has([data-do])");
  const labels = () => chart.querySelectorAll(".role-axis-label");
  const ticks = () => [...labels()].map((group) => group.textContent);
  const blue = () => chart.querySelectorAll('svg [stroke="#0072b2"]').length;
  const seen = { width: innerWidth, background: getComputedStyle(document.body).backgroundColor };
  chart.scrollIntoView();
  await until(() => chart.dataset.drawn);
  Object.assign(seen, { drawn: chart.dataset.drawn, blue: blue(), ticks: ticks() });
  chart.querySelector("[data-do=log]").click();
  await until(() => chart.dataset.drawn != seen.drawn);
  chart.querySelector("[data-do=in]").click();
  await until(() => ticks()[0] != seen.ticks[0]);
  seen.zoomed = ticks();
  chart.closest("figure").querySelector('input[value="layer norm"]').click();
  await until(() => !blue());
  seen.scroll = document.documentElement.scrollWidth;
  seen.errors = errors;
  parent.document.body.dataset.seen = JSON.stringify(seen);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for norm in ("none", "layer"):
        write_run(root, norm, 128)
    return page_of(root, tmp_path_factory.mktemp("page"))


def browse(page, place, width, *options):
    """Open the page in a browser, in a frame of a width; return what the probe has seen.

    A window has at least 500 pixels, a frame may have less.
    """
    inside = html.escape(page.replace("<head>", f"<head>{PROBE}", 1))
    place.joinpath("frame.html").write_text(
        f'<!DOCTYPE html><iframe width={width} height=900 srcdoc="{inside}"></iframe>', "utf-8"
    )
    words = [CHROMIUM, *FLAGS, *options, f"--user-data-dir={place}/profile"]
    done = subprocess.run([*words, place / "frame.html"], capture_output=True, text=True)
    return json.loads(html.unescape(re.search('data-seen="(.*?)"', done.stdout)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package chromium")
@pytest.mark.parametrize("width, dark", [(390, True), (1280, False)])
def test_a_page_works_in_a_browser(page, tmp_path, width, dark):
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    seen = browse(page, tmp_path, width, "--window-size=1400,1000", scheme)
    assert seen["errors"] == [] and seen["width"] == width and seen["scroll"] <= width
    assert seen["drawn"] == "log" and seen["blue"] > 0 and seen["zoomed"] != seen["ticks"]
    assert seen["background"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
