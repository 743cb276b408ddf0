"""The pages in a browser: no error, no horizontal scroll, toggles that work, light and dark."""

import http.server
import json
import queue
import shutil
import subprocess
import threading

import pytest

from tests.test_report import page_of, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"

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
  fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for norm in ("none", "layer"):
        write_run(root, norm, 128)
    return page_of(root, tmp_path_factory.mktemp("page"))


@pytest.fixture
def browse(page, tmp_path):
    """Return a function that opens the page in a browser and returns what the probe has seen."""
    seen: queue.Queue = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            if self.path == "/page":
                self.wfile.write(page.replace("<head>", f"<head>{PROBE}", 1).encode())
            elif self.path != "/seen":  # a frame, for a window has at least 500 pixels
                width = self.path.strip("/")
                self.wfile.write(f"<iframe src=/page width={width} height=900>".encode())

        def do_POST(self):
            seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def log_message(self, *_):
            pass

    def open_page(width, *options):
        url = f"http://127.0.0.1:{server.server_port}/{width}"
        command = [CHROMIUM, *FLAGS, *options, f"--user-data-dir={tmp_path}/profile", url]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return seen.get(timeout=120)
        finally:
            browser.terminate()
            browser.wait()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield open_page
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package chromium")
@pytest.mark.parametrize("width, dark", [(390, True), (1280, False)])
def test_a_page_works_in_a_browser(browse, width, dark):
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    seen = browse(width, "--window-size=1400,1000", scheme)
    assert seen["errors"] == [] and seen["width"] == width and seen["scroll"] <= width
    assert seen["drawn"] == "log" and seen["blue"] > 0 and seen["zoomed"] != seen["ticks"]
    assert seen["background"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
