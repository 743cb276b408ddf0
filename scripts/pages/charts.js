// Charts in place of their pictures: values on hover, curves on and off, log or linear, zoom.
(async () => {
  const shared = JSON.parse(document.getElementById("shared").textContent);
  const tools = document.getElementById("tools").content;
  for (const chart of document.querySelectorAll(".chart"))
    if (chart.querySelector("script").textContent.includes('"params":')) chart.append(tools.cloneNode(true));
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(unpacked).text();
  document.head.append(library);
  document.documentElement.classList.add("live");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // What a reader has chosen is in chart.log and chart.x; the boxes of its figure say which curves are off.
  function specification(chart) {
    const own = JSON.parse(chart.querySelector("script").textContent);
    const spec = { ...(own.params ? shared.curves : {}), ...own, width: "container" };
    spec.height ??= 230;
    spec.autosize = { type: "fit-x", contains: "padding" };
    if (!own.params) return spec;
    const boxes = chart.closest("figure")?.querySelectorAll("input:not(:checked)") ?? [];
    const { x, y } = spec.encoding;
    chart.log ??= y.scale.type == "log";
    const kind = chart.log ? "log" : "linear";
    y.scale = { ...y.scale, type: kind, domain: own.usermeta.domains?.[kind] };
    if (chart.x) x.scale.domain = chart.x;
    spec.params = [{ name: "log", value: chart.log }, { name: "off", value: [...boxes].map((box) => box.value) }];
    spec.data = { values: [...(shared.published[own.published] ?? []), ...own.data.values] };
    return spec;
  }

  async function draw(chart) {
    const options = {  // logLevel 1: errors only
      config: shared.config, logLevel: 1, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" },
      actions: { export: true, source: false, compiled: false, editor: false },
    };
    chart.view?.finalize();
    chart.view = (await vegaEmbed(chart.querySelector(".picture"), specification(chart), options)).view;
    chart.querySelector("[data-do=log]")?.setAttribute("aria-pressed", chart.log);
    chart.dataset.drawn = chart.log ? "log" : "linear";
  }

  function zoom(chart, factor) {
    const scale = chart.view.scale("x"), log = scale.type == "log";
    const [low, high] = scale.domain().map((x) => (log ? Math.log(x) : +x));
    const middle = (low + high) / 2, half = ((high - low) / 2) * factor;
    chart.x = [middle - half, middle + half].map((x) => (log ? Math.exp(x) : x));
  }

  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });
  for (const chart of document.querySelectorAll(".chart")) near.observe(chart);

  document.addEventListener("change", ({ target }) => {
    for (const chart of target.closest("figure")?.querySelectorAll(".chart") ?? []) if (chart.view) draw(chart);
  });
  document.addEventListener("click", ({ target }) => {
    const chart = target.closest(".chart"), what = target.dataset?.do;
    if (!what || !chart.view) return;
    if (what == "log") chart.log = !chart.log;
    else zoom(chart, what == "in" ? 0.5 : 2);
    draw(chart);
  });
  dark.addEventListener("change", () => document.querySelectorAll(".chart[data-drawn]").forEach(draw));
})();
