"""docs/scale.md: what is between marks is written here, all else by people. One plot for all ranges."""

from html import escape
from statistics import median

from compare.page import Part
from compare.tables import row, rule

RANGES = Part("ranges", "benches/scale/run")
# Dearest of a range to its least: above this the page has to say why.
MOST = 1.2
TITLES = {
    "workers": ("Workers", "new connection, CPU µs"),
    "upstreams": ("Upstreams, a listener for each", "new connection, CPU µs"),
    "listeners": ("Listeners of one upstream", "new connection, CPU µs"),
    "streams": ("Streams, 5,000 round trips a second in all", "round trip, CPU µs"),
    "tickets": ("Tickets held in all", "resumed connection, CPU µs"),
}


def write(path, data):
    text = path.read_text(encoding="utf-8")
    path.write_text(RANGES.put(text, tables(data)), encoding="utf-8")
    path.with_suffix(".svg").write_text(draw(data), encoding="utf-8")


def tables(data):
    found = data["parts"]
    sections = [conditions(data), "![plot](scale.svg)"]
    if any(name in found for name in TITLES):
        sections.append("### CPU time of a unit\n\n" + costs(found))
    if "configuration" in found:
        sections.append("### Configurations by size\n\n" + configuration(found["configuration"]))
    if "reload" in found:
        sections.append("### A reload while streams flow\n\n" + reload(found["reload"]))
    return "\n\n".join(sections)


def conditions(data):
    machine = data["machine"]
    return (f"{machine['date']}, egret at commit {data['revision']}; {machine['cpus']} processors, {machine['cpu']}; "
            f"{machine['kernel']}; {data['files']:,} descriptors; {data['network']}; load average at the start "
            f"{machine['load_average']:.1f}.")


def costs(found):
    lines = [row("range", "at", "median", "min–max", "÷ least of the range", "other figures"), rule(6)]
    for name, (title, unit) in TITLES.items():
        points = found.get(name, [])
        least = min((median(point["us"]) for point in points), default=1)
        for point in points:
            ratio = median(point["us"]) / least
            lines.append(row(f"{title}: {unit}", f"{point['at']:,}", f"{median(point['us']):.1f}",
                             f"{min(point['us']):.1f}–{max(point['us']):.1f}",
                             f"**{ratio:.2f}**" if ratio > MOST else f"{ratio:.2f}", ", ".join(others(point))))
    return "\n".join(lines)


def others(point):
    if "kib" in point:
        yield f"{point['kib']:.1f} KiB each"
    if point.get("p99") is not None:
        yield f"p50 {point['p50']:.0f} µs, p99 {point['p99']:.0f} µs"
    if "cut" in point:
        yield f"{point['cut']} cut"
    if "held" in point:
        yield f"{point['held']:,.0f} held, {point['mib']:.1f} MiB, {point['resumed']:.0%} of the connections resumed"


def configuration(points):
    lines = [row("upstreams", "file, KiB", "check, s", "start to listening, s", "memory, MiB", "reload unchanged, s: load + swap",
                 "reload, other certificate, s", "peak, MiB", "memory after, MiB"), rule(9)]
    for point in points:
        lines.append(row(f"{point['at']:,}", f"{point['kib']:.0f}", f"{point['check']:.3f}", f"{point['start']:.3f}",
                         f"{point['mib']:.1f}", times(point["same"]), times(point["changed"]), f"{point['peak_mib']:.1f}",
                         f"{point['mib_after']:.1f}"))
    return "\n".join(lines)


def times(swap):
    return f"{swap.get('load', 0):.3f} + {swap.get('swap', 0):.4f}"


def reload(points):
    lines = [row("upstreams", "streams", "certificate", "load, s", "swap, ms", "p99 before, µs", "p99 meanwhile, µs", "ratio",
                 "longest, µs", "cut"), rule(10)]
    for point in points:
        before, during = point["before"], point["during"]
        lines.append(row(
            f"{point['at']:,}", f"{point['streams']:,}", "replaced" if point["changed"] else "the same",
            f"{point['swap'].get('load', 0):.3f}", f"{point['swap'].get('swap', 0) * 1e3:.1f}", f"{before['p99']:.0f}",
            f"{during['p99']:.0f}", f"{during['p99'] / before['p99']:.2f}", f"{during['max']:.0f}", point["cut"]))
    return "\n".join(lines)


# The plot: a panel for each range, the count on a logarithmic axis, cost from zero upwards.
WIDTH, HEIGHT, COLUMNS, MARGIN = 960, 220, 2, 24
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 44, 34
STYLE = "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;fill:#555}"
COLOUR = "#0b6e4f"


def draw(data):
    """An SVG document."""
    panels = [(TITLES[name], data["parts"][name]) for name in TITLES if data["parts"].get(name)]
    panels += curves(data["parts"].get("configuration", []))
    width = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS
    total = -(-len(panels) // COLUMNS) * HEIGHT + 2 * MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" viewBox="0 0 {WIDTH} {total}">',
             f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{total}" fill="#fff"/>']
    for index, (words, points) in enumerate(panels):
        x, y = MARGIN + index % COLUMNS * (width + MARGIN), MARGIN + index // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x:.1f} {y:.1f})">', *panel(words, points, width), "</g>"]
    text = "Points: median. Vertical lines: least and most. Dashed: 1.2 times the least median."
    parts += [f'<text class="small" x="{MARGIN}" y="{total - 12}">{text}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def curves(points):
    """Figures of whole configurations, in the shape of a range."""
    kinds = {"check": ("Configurations: upstreams", "check, ms"), "start": ("Configurations: upstreams", "start to listening, ms")}
    return [(words, [{"at": point["at"], "us": [point[key] * 1e3]} for point in points]) for key, words in kinds.items() if points]


def panel(words, points, width):
    title, unit = words
    most = max(max(point["us"]) for point in points) * 1.1 or 1
    inner, bottom = width - LEFT - RIGHT, HEIGHT - BOTTOM
    places = [LEFT + 20 + (inner - 40) * at / max(1, len(points) - 1) for at in range(len(points))]

    def y(value):
        return bottom - (bottom - TOP) * value / most

    yield f'<text class="title" y="14">{escape(title)}</text><text class="small" y="30">{escape(unit)}</text>'
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{width - RIGHT:.1f}" stroke="#888" fill="none"/>'
    bound = MOST * min(median(point["us"]) for point in points)
    if bound < most and "CPU" in unit:
        yield f'<path d="M{LEFT} {y(bound):.1f}H{width - RIGHT:.1f}" stroke="#c1121f" stroke-dasharray="4 3"/>'
    middles = [(x, y(median(point["us"]))) for x, point in zip(places, points)]
    yield f'<path d="M{" L".join(f"{x:.1f} {at:.1f}" for x, at in middles)}" stroke="{COLOUR}" fill="none"/>'
    for (x, at), point in zip(middles, points):
        yield f'<path d="M{x:.1f} {y(min(point["us"])):.1f}V{y(max(point["us"])):.1f}" stroke="#222"/>'
        yield f'<circle cx="{x:.1f}" cy="{at:.1f}" r="3" fill="{COLOUR}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{at - 8:.1f}" text-anchor="middle">{median(point["us"]):.0f}</text>'
        yield f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{point["at"]:,}</text>'
