"""Figures as Markdown."""

from .figures import Figures
from .scenarios import SCENARIOS

# Not products: what the limit is made of.
OURS = ("reference", "plain")


def order(data):
    """egret, the reference, the others as they were asked for, the plain relay."""
    others = [name for name in data["versions"] if name not in ("egret", "egret-pool", *OURS)]
    return ["egret", "reference", *others, "plain"]


def headline(data):
    """A row for each scenario: egret beside the best product that was there, and which TLS library that has."""
    lines = [row("", "egret", "best other product", "its TLS library", "egret ÷ it", "min–max"), rule(6)]
    for one in measured(data):
        products = [name for name in one.competitors() if name not in ("egret", *OURS)]
        if "egret" not in one.rounds or not products:
            continue
        best, digits = products[0], one.scenario.digits
        ratio = one.ratio("egret", best)
        library = data.get("libraries", {}).get(best) or "unknown"
        lines.append(row(f"`{one.scenario.name}`, {one.scenario.unit}", f"{one.cost('egret')[0]:.{digits}f}",
                         f"{best}: {one.cost(best)[0]:.{digits}f}", library,
                         *((f"**{ratio[0]:.2f}**", f"{ratio[1]:.2f}–{ratio[2]:.2f}") if ratio else "--")))
    return "\n".join(lines)


def measured(data):
    """Scenarios of throughput with figures, in their order."""
    figures = [Figures(data, scenario) for scenario in SCENARIOS.values() if not scenario.rtt_ms]
    return [one for one in figures if one.rounds]


def summary(data):
    """A row for each scenario: medians, and behind each its ratio to egret's."""
    scenarios = measured(data)
    proxies = [name for name in order(data) if any(name in one.rounds for one in scenarios)]
    lines = [row("", "limit", *proxies), rule(len(proxies) + 2)]
    for one in scenarios:
        digits = one.scenario.digits
        limit = one.limit()
        cells = [f"`{one.scenario.name}`, {one.scenario.unit}", "-" if limit is None else f"{limit:.{digits}f}"]
        for proxy in proxies:
            if proxy not in one.rounds:
                cells.append("failed" if any(name == proxy for name, _ in one.failures) else "-")
                continue
            text, ratio = f"{one.cost(proxy)[0]:.{digits}f}", one.ratio(proxy)
            cells.append(f"**{text}**" if proxy == "egret" else text + (f" ({ratio[0]:.2f}×)" if ratio else ""))
        lines.append(row(*cells))
    return "\n".join(lines)


def details(data):
    """A table for each scenario, the cheapest first."""
    return "\n\n".join(detail(one) for one in measured(data))


def detail(figures):
    scenario, limit = figures.scenario, figures.limit()
    lines = [f"#### {scenario.title} (`{scenario.name}`)", ""]
    lines.append(row("", scenario.unit, "min–max", "÷ egret", "min–max", "÷ limit",
                     *(heading for _, heading, _ in scenario.columns), "rounds"))
    lines.append(rule(len(scenario.columns) + 7))
    for proxy in figures.proxies():
        middle, least, most = figures.cost(proxy)
        digits, ratio = scenario.digits, figures.ratio(proxy)
        cells = [f"**{proxy}**" if proxy == "egret" else proxy]
        cells += [f"{middle:.{digits}f}", f"{least:.{digits}f}–{most:.{digits}f}"]
        cells += [f"{ratio[0]:.2f}", f"{ratio[1]:.2f}–{ratio[2]:.2f}"] if ratio else ["-", "-"]
        cells.append(f"{middle / limit:.2f}" if limit and proxy != "plain" else "-")
        cells += [number(figures.second(proxy, key), places) for key, _, places in scenario.columns]
        lines.append(row(*cells, len(figures.rounds[proxy])))
    lines += [f"\n{proxy} failed: {why}" for proxy, why in dict(figures.failures).items()]
    return "\n".join(lines)


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def rule(columns):
    return "|" + " --- |" * columns
