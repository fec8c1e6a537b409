"""Numbers out of cells: medians, spread, ratios within a round, the limit."""

from statistics import mean, median


class Figures:
    """What was measured in one scenario."""

    def __init__(self, data, scenario):
        self.scenario = scenario
        cells = [cell for cell in data["cells"] if cell["scenario"] == scenario.name]
        self.failures = [(cell["proxy"], cell["failed"]) for cell in cells if "failed" in cell]
        self.rounds = {}
        for cell in cells:
            if "failed" not in cell:
                self.rounds.setdefault(cell["proxy"], {})[cell["round"]] = cell
        self._cryptography = [limits[scenario.cryptography] for limits in data["limits"] if scenario.cryptography]

    def proxies(self):
        """Those with figures, the cheapest first."""
        return sorted(self.rounds, key=lambda proxy: self.cost(proxy)[0])

    def competitors(self):
        """Those that speak TLS."""
        return [proxy for proxy in self.proxies() if proxy != "plain"]

    def cost(self, proxy):
        """Median, least and most."""
        return spread(cell["cost"] for cell in self.rounds[proxy].values())

    def ratio(self, proxy, base="egret"):
        """Cost over that of `base` in the same round: median, least and most; None without a common round."""
        own, others = self.rounds.get(proxy, {}), self.rounds.get(base, {})
        ratios = [cell["cost"] / others[number]["cost"] for number, cell in own.items() if number in others]
        return spread(ratios) if ratios else None

    def limit(self):
        """The plain relay and the cryptography alone; None where memory is measured or no plain relay ran."""
        if "plain" not in self.rounds or self.scenario.name == "idle" or self.scenario.rtt_ms:
            return None
        # What disturbs the cryptography only adds to it, so its least counts.
        return self.cost("plain")[0] + min(self._cryptography, default=0)

    def round_trip(self):
        """Of the path, in milliseconds. What disturbs it only adds to it, so its least counts."""
        return min(cell["round_trip_ms"] for rounds in self.rounds.values() for cell in rounds.values())

    def saved(self, slow, quick):
        """How much longer one takes than the other in the same round: median; None without a common round."""
        slow, quick = self.rounds[slow], self.rounds[quick]
        differences = [cell["cost"] - quick[number]["cost"] for number, cell in slow.items() if number in quick]
        return median(differences) if differences else None

    def mean(self, proxy, key):
        """Mean of a figure that the kernel counts too coarsely for a single round."""
        return mean(cell[key] for cell in self.rounds[proxy].values())

    def second(self, proxy, key):
        """Median of another figure; None where it was not measured."""
        values = [cell[key] for cell in self.rounds[proxy].values() if cell.get(key) is not None]
        return median(values) if values else None


def spread(values):
    values = list(values)
    return median(values), min(values), max(values)
