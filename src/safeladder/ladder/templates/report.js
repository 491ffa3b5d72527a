(() => {
  const palettes = {
    light: { s: ["#6f7a86", "#c46a00", "#0068b0", "#00805f", "#a8517f", "#b53a00", "#3c8fc7"],
             ink: "#1c2127", muted: "#5a6470", grid: "#e9ebec", card: "#ffffff" },
    dark: { s: ["#98a3ae", "#f2a93c", "#62b4f2", "#35c79b", "#dd97bd", "#ff8a4f", "#a9d8f7"],
            ink: "#e4e7ea", muted: "#9ba6b1", grid: "#2a323b", card: "#1b2026" },
  };
  const charts = document.getElementById("charts").textContent;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const coloured = (palette) => JSON.parse(charts.replace(/"@s(\d)(?:\/(\d\d))?"/g,
    (_, number, share) => JSON.stringify(palette.s[number]
      + (share ? Math.round(2.55 * share).toString(16).padStart(2, "0") : ""))));

  const merge = (base, extra) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(extra || {})) {
      const nested = value && typeof value === "object" && !Array.isArray(value);
      result[key] = nested ? merge(base[key] || {}, value) : value;
    }
    return result;
  };

  const base = (palette, narrow) => {
    const axis = { gridcolor: palette.grid, linecolor: palette.grid, tickcolor: palette.grid,
                   color: palette.muted, title: { font: { size: 12 } }, tickfont: { size: 12 },
                   automargin: true, exponentformat: "power" };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: palette.ink },
      margin: { l: narrow ? 44 : 54, r: 12, t: 12, b: 40 },
      xaxis: axis, yaxis: axis, hovermode: "closest",
      hoverlabel: { bgcolor: palette.card, bordercolor: palette.grid,
                    font: { color: palette.ink, size: 12 } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    };
  };

  const draw = () => {
    const palette = dark.matches ? palettes.dark : palettes.light;
    const narrow = window.innerWidth < 560;
    for (const [id, chart] of Object.entries(coloured(palette))) {
      const place = document.getElementById("chart-" + id);
      if (chart.layout.height) place.style.height = chart.layout.height + "px";
      const layout = merge(base(palette, narrow), chart.layout);
      if (narrow) {  // no room for names beside the plot: a touch tells them
        layout.margin.r = 12;
        layout.annotations = (layout.annotations || []).filter((note) => !note.text);
      }
      Plotly.react(place, chart.data, layout, { displayModeBar: false, responsive: true });
    }
  };
  draw();
  dark.addEventListener("change", draw);
})();
