"""How long a new connection waits for its first byte, over a path with a round-trip time."""

from . import scenarios
from .figures import Figures
from .tables import OURS, row, rule

MEANING = {
    "egret-pool": "**egret**, pool", "egret": "egret, no pool", "plain": "plain, without TLS",
    "reference": "tokio-rustls relay",
}


def measured(data):
    """Scenarios with figures, in their order."""
    figures = [Figures(data, scenario) for scenario in scenarios.SCENARIOS.values() if scenario.rtt_ms]
    return [one for one in figures if one.rounds]


def section(data):
    """A table for each path."""
    others = [name for name in data["versions"] if name not in ("egret-pool", "egret", *OURS)]
    ordered = ["egret-pool", "egret", "plain", *others, "reference"]
    return "\n\n".join(table(one, ordered) for one in measured(data))


def table(figures, ordered):
    trip = figures.round_trip()
    lines = [f"#### A path of {figures.scenario.rtt_ms} ms there and back ({trip:.2f} ms measured)", ""]
    lines += [row("", "median ms", "min–max", "p90 ms", "p99 ms", "÷ plain", "min–max", "round trips", "CPU µs each",
                  "rounds"), rule(10)]
    for name in (name for name in ordered if name in figures.rounds):
        middle, least, most = figures.cost(name)
        ratio = figures.ratio(name, "plain")
        lines.append(row(
            MEANING.get(name, name), f"{middle:.2f}", f"{least:.2f}–{most:.2f}",
            *(f"{figures.second(name, key):.2f}" for key in ("p90_ms", "p99_ms")),
            *((f"{ratio[0]:.2f}", f"{ratio[1]:.2f}–{ratio[2]:.2f}") if ratio else "--"),
            f"{middle / trip:.1f}", f"{figures.mean(name, 'cpu_us'):.0f}", len(figures.rounds[name])))
    lines += [f"\n{name} failed: {why}" for name, why in dict(figures.failures).items()]
    if verdict := judge(figures):
        lines += ["", verdict]
    return "\n".join(lines)


def judge(figures):
    """What the pool is to be worth; empty where one of the three was not measured."""
    if not {"egret-pool", "egret", "plain"} <= figures.rounds.keys():
        return ""
    ratio, saved = figures.ratio("egret-pool", "plain"), figures.saved("egret", "egret-pool")
    if ratio is None or saved is None:
        return ""
    # A handshake is a whole number of round trips; what was measured of one is right to some hundredths.
    ratio, saved = ratio[0], round(saved / figures.round_trip(), 1)
    good = ratio <= scenarios.FIRST_BYTE_RATIO and saved >= scenarios.FIRST_BYTE_SAVED
    return (
        f"With the pool, the first byte takes {ratio:.2f} times as long as through the plain relay (at most "
        f"{scenarios.FIRST_BYTE_RATIO} is wanted), and {saved:.1f} round trips less than without the pool (at least "
        f"{scenarios.FIRST_BYTE_SAVED} is wanted): {'reached' if good else '**not reached**'}.")
