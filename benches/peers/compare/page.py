"""docs/performance.md: what stands between marks is written here, all else by people."""

from statistics import median

from . import first_byte, tables


class Part:
    """What stands between two marks."""

    def __init__(self, name, writer="benches/peers/run"):
        self.begin = f"<!-- {name}, written by {writer}: from here -->"
        self.end = f"<!-- {name}, written by {writer}: to here -->"

    def put(self, page, body):
        """The page with another text between the marks."""
        if page.count(self.begin) != 1 or page.count(self.end) != 1:
            raise RuntimeError(f"the page has not just one pair of the marks {self.begin} and {self.end}")
        before, rest = page.split(self.begin)
        return before + self.begin + "\n" + body + "\n" + self.end + rest.split(self.end)[1]


THROUGHPUT, FIRST_BYTE, HEADLINE = Part("cost"), Part("first byte"), Part("headline")


def update(path, data, plot, headline_only=False):
    """Replaces what was measured; a page without marks is an error, so that nobody's text is lost."""
    text = path.read_text(encoding="utf-8")
    if tables.measured(data):
        text = HEADLINE.put(text, headline(data))
    if headline_only:
        path.write_text(text, encoding="utf-8")
        return
    if tables.measured(data):
        text = THROUGHPUT.put(text, throughput(data, plot))
    if first_byte.measured(data):
        text = FIRST_BYTE.put(text, first_bytes(data))
    path.write_text(text, encoding="utf-8")


def throughput(data, plot):
    return "\n\n".join((
        "## Results", conditions(data), "### Overview", overview(), tables.summary(data), f"![plot]({plot})",
        "### Does each do what it is measured at?", proofs(data), "### Each scenario", tables.details(data),
    ))


def first_bytes(data):
    settings = data["settings"]
    return "\n\n".join(("### First byte: results", "\n".join((
        *surroundings(data),
        f"- {settings['rounds']} rounds of {settings['seconds']} s after {settings['warmup']} s, who begins changes from "
        "round to round. TLS 1.3, X25519, P-256 certificates on both sides; the origin gives tickets.",
        f"- {others_used(data)}",
    )), first_byte.section(data)))


def surroundings(data):
    """Where and when, in lines."""
    machine = data["machine"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    versions = [f"{name} {version}" for name, version in data["versions"].items() if not version.startswith("of ")]
    return (
        f"- Date: {machine['date']}. egret at commit {data['revision']}.",
        f"- {kind.capitalize()} with {machine['cpus']} processors: {machine['cpu']}; {machine['memory_gib']} GiB; "
        f"{machine['kernel']}.",
        f"- Network: {data['network']}.",
        f"- Versions: {'; '.join(versions)}.",
    )


def conditions(data):
    settings = data["settings"]
    limits = {key: min(one[key] for one in data["limits"]) for key in data["limits"][0]}
    return "\n".join((
        *surroundings(data),
        f"- One worker each, on processor {settings['proxy_cpu']}; load and origin on processor {settings['load_cpu']}. "
        f"{settings['rounds']} rounds, windows of {settings['seconds']} s after {settings['warmup']} s, who begins changes "
        "from round to round. TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, P-256 certificates on both sides.",
        *(f"- Measured apart at {later['machine']['date']}, {later['settings']['rounds']} rounds, load average "
          f"{later['machine']['load_average']:.1f}: {', '.join(later['scenarios'])}."
          for later in data.get("replaced", ())),
        f"- {others_used(data)}",
        f"- The cryptography alone: {limits['seal_s_gib']:.3f} s/GiB (AES-128-GCM, records of 16 KiB), "
        f"{limits['full_us']:.0f} µs for a full handshake of a client (rustls, in memory), "
        f"{limits['resumed_us']:.0f} µs resumed.",
    ))


def others_used(data):
    """How quiet the machine was: the reader has to know."""
    cells = [cell for cell in data["cells"] if cell["scenario"] != "idle" and "failed" not in cell]
    if not cells:
        return "Nothing was measured."
    foreign, quiet = [cell["foreign"] for cell in cells], data["settings"]["quiet"]
    above = sum(value > quiet for value in foreign)
    first = "All that was measured went before other programs (real-time priority). "
    return (first if data["settings"].get("real_time") else "") + (
        f"Load average at the start: {data['machine']['load_average']:.1f}. While it was measured, other programs used "
        f"{median(foreign):.2f} of a processor in the median, {max(foreign):.2f} at most. A measurement above "
        f"{quiet:.2f} was repeated up to {data['settings']['repeats']} times and the quietest kept; {above} of "
        f"{len(cells)} stayed above."
    )


def headline(data):
    """egret beside the best, and what the others were: most of a difference may be that of the TLS libraries."""
    libraries = [f"{name} with {library}" for name, library in data.get("libraries", {}).items()
                 if library and not name.startswith("egret")]
    others = f" Measured were {', '.join(libraries)}." if libraries else ""
    words = ("In each row the best of the other products that were measured, by the median." + others +
             " Those that were given by `--peer` have buffers of 64 KiB in bulk, Debian's their defaults.")
    where = "\n".join((*surroundings(data), f"- {data['settings']['rounds']} rounds of {data['settings']['seconds']} s. {others_used(data)}"))
    return "\n\n".join((words, tables.headline(data), where))


def overview():
    return (
        "The figure is the CPU time (user and system) of all processes of the proxy for each unit of work, so a small one "
        "is good; for `idle` it is memory. Medians of the rounds; in brackets the median of the ratios to egret within a "
        "round. `limit` is the plain relay of the same rounds and the cryptography alone. `plain` copies without TLS "
        "through buffers of 64 KiB; `reference` is the shortest honest relay of tokio-rustls (64 KiB in bulk, else 8 KiB)."
    )


def proofs(data):
    lines = [
        "Before the first round, each was led to the right origin, to one whose certificate is of another authority, and "
        "to one with another name. The origins recorded every handshake and every stream that brought data. A proxy that "
        "sends no SNI, shows no certificate or serves a wrong origin ends the run.",
        "",
        tables.row("", "the right origin saw", "both wrong ones saw"), tables.rule(3),
    ]
    for name, proof in data["proofs"].items():
        lines.append(tables.row(name, "; ".join(proof["parameters"]), "none of its clients' data"))
    return "\n".join(lines)
