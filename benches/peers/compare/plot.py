"""The plot: one panel for each scenario, one bar for each proxy, the limit as a line. Written as text; nothing of it
needs a program to draw."""

from html import escape

from .tables import measured, order

WIDTH, COLUMNS, MARGIN = 960, 2, 24
LABEL, VALUE = 104, 54  # room left and right of the bars
BAR, GAP, HEAD, FOOT = 14, 5, 40, 22
COLOURS = {"egret": "#0b6e4f", "reference": "#7aa5c4", "plain": "#c9c9c9"}
OTHERS = "#b08968"
STYLE = "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;fill:#555}"


def draw(data):
    """An SVG document."""
    panels = measured(data)
    height = HEAD + max((len(one.rounds) for one in panels), default=0) * (BAR + GAP) + FOOT
    width = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS
    rows = -(-len(panels) // COLUMNS)
    total = rows * height + 2 * MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" viewBox="0 0 {WIDTH} {total}">',
             f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{total}" fill="#fff"/>']
    for index, figures in enumerate(panels):
        x = MARGIN + index % COLUMNS * (width + MARGIN)
        y = MARGIN + index // COLUMNS * height
        parts += [f'<g transform="translate({x:.1f} {y:.1f})">', *panel(figures, order(data), width), "</g>"]
    text = "Bars: median. Thin lines: least and most. Dashed: plain relay and cryptography alone. Less is better."
    parts += [f'<text class="small" x="{MARGIN}" y="{total - 12}">{text}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def panel(figures, ordered, width):
    scenario, limit = figures.scenario, figures.limit()
    names = [name for name in ordered if name in figures.rounds]
    most = max([figures.cost(name)[2] for name in names] + [limit or 0])
    scale = (width - LABEL - VALUE) / (most or 1)
    yield f'<text class="title" y="14">{escape(scenario.title)}</text>'
    yield f'<text class="small" y="30">{escape(scenario.unit)}</text>'
    for index, name in enumerate(names):
        yield from bar(name, figures.cost(name), HEAD + index * (BAR + GAP), scale, scenario.digits)
    if limit is not None:
        x, bottom = LABEL + limit * scale, HEAD + len(names) * (BAR + GAP)
        yield f'<path d="M{x:.1f} {HEAD - 4}V{bottom}" stroke="#c1121f" stroke-dasharray="4 3"/>'


def bar(name, cost, y, scale, digits):
    middle, least, most = cost
    colour, centre = COLOURS.get(name, OTHERS), y + BAR / 2
    yield f'<text x="{LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{LABEL}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" fill="{colour}"/>'
    yield f'<path d="M{LABEL + least * scale:.1f} {centre}H{LABEL + most * scale:.1f}" stroke="#222"/>'
    yield f'<text class="small" x="{LABEL + most * scale + 5:.1f}" y="{y + 11}">{middle:.{digits}f}</text>'
