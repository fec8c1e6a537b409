"""egret and its peers, side by side, in interleaved rounds. The primary figure is the CPU time of a proxy's processes
for each unit of work: unlike throughput it says something on a machine that is not idle."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import cell, first_byte, machine, page, plot, proof, tables
from .proxies import PROXIES, built, library, program, version
from .scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[3]


class Setup:
    """What all measurements of a run share."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.seconds, self.warmup = options.seconds, options.warmup
        self.proxy_cpu, self.load_cpu = options.proxy_cpu, options.load_cpu
        self.tools = str(ROOT / "target/peers/release/peers")
        self.values = {"ROOT": ROOT, "TOOLS": self.tools}
        self.certificates = folder / "certificates"
        self.certificates.mkdir()
        subprocess.run([self.tools, "certificates", "--folder", self.certificates], check=True)
        self.programs = {}
        for name in list(options.proxies):
            self.programs[name] = program(PROXIES[name], self.values)
            if not self.programs[name] and PROXIES[name].optional:
                tell(f"{name}: not there, left out")
                options.proxies.remove(name)
            elif not self.programs[name]:
                sys.exit(f"{name}: no program {PROXIES[name].program}")

    def limits(self):
        """The cryptography alone, on the proxies' processor."""
        command = [self.tools, "limits", "--certificates", self.certificates, "--tickets", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60,
                              preexec_fn=lambda: os.sched_setaffinity(0, {self.proxy_cpu}))
        return json.loads(done.stdout)

    def disturbed(self):
        """Whether others use more of the two processors than they may; nothing of ours runs now."""
        return 2 * machine.busy((self.proxy_cpu, self.load_cpu), 0.2) > self.options.quiet

    def measure(self, proxy, scenario):
        """A cell; where others disturbed it, the quietest of a few."""
        results = []
        for _ in range(1 + self.options.repeats):
            deadline = time.monotonic() + self.options.patience
            while self.disturbed() and time.monotonic() < deadline:
                pass
            results.append(cell.measure(self, proxy, scenario))
            if results[-1].get("foreign", 9) <= self.options.quiet:
                break
        return min(results, key=lambda result: result.get("foreign", 9))


def run(options):
    """Measures; what is finished is written after every scenario, so that an interrupted run is not lost."""
    facts = machine.facts()
    data = {"machine": facts, "network": machine.own_network(), "revision": machine.revision(ROOT), "settings": {
        key: getattr(options, key)
        for key in ("rounds", "seconds", "warmup", "quiet", "repeats", "proxy_cpu", "load_cpu", "real_time")}}
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    folder.chmod(0o755)
    try:
        setup = Setup(options, folder)
        proxies = [PROXIES[name] for name in options.proxies]
        data["versions"] = {proxy.name: version(proxy, setup.programs[proxy.name]) for proxy in proxies}
        data["libraries"] = {proxy.name: library(setup.programs[proxy.name]) for proxy in proxies if not proxy.ours}
        data["proofs"] = {proxy.name: proof.prove(setup, proxy) for proxy in proxies if not proxy.plain}
        for name, proven in data["proofs"].items():
            if proven["problems"]:
                sys.exit(f"{name} does not do what it is measured at: {'; '.join(proven['problems'])}")
            tell(f"{name}: sends SNI, shows its certificate, refuses wrong origins")
        data["limits"], data["cells"] = [], []
        for number in range(options.rounds):
            data["limits"].append(setup.limits())
            for scenario in (SCENARIOS[name] for name in options.scenarios):
                turn = number % len(proxies)
                for proxy in proxies[turn:] + proxies[:turn]:
                    if proxy.pooled and not scenario.rtt_ms:
                        continue
                    result = setup.measure(proxy, scenario)
                    data["cells"].append({"round": number, "scenario": scenario.name, "proxy": proxy.name, **result})
                    tell(f"round {number + 1}, {scenario.name}, {proxy.name}: " + (result.get("failed") or
                         f"{result['cost']:.{scenario.digits}f} {scenario.unit}, others {result['foreign']:.2f}"))
                write(options.json, json.dumps(data, indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return data


def join(runs):
    """One result out of several of the same revision; what differs from the first run is told."""
    data = {**runs[0], "replaced": []}
    for run in runs[1:]:
        if (run["revision"], run["versions"]) != (data["revision"], data["versions"]):
            sys.exit("runs of different programs cannot be joined")
        names = {cell["scenario"] for cell in run["cells"]}
        data["cells"] = [cell for cell in data["cells"] if cell["scenario"] not in names] + run["cells"]
        data["replaced"].append({"scenarios": sorted(names), "machine": run["machine"], "settings": run["settings"]})
    return data


def tell(text):
    print(text, file=sys.stderr, flush=True)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=2, help="of each measured window; default: 2")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before it; default: 0.5")
    parser.add_argument("--proxies", type=names(PROXIES), default=list(PROXIES), help="of " + ",".join(PROXIES))
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=BINARY",
                        help="an nginx, HAProxy, stunnel, Envoy or ghostunnel that you have built, measured as NAME beside the "
                             "others; it is asked what it is and which TLS library it has; can be repeated")
    parser.add_argument("--scenarios", type=names(SCENARIOS), default=list(SCENARIOS), help="of " + ",".join(SCENARIOS))
    parser.add_argument("--proxy-cpu", type=int, default=0, help="the proxies' processor; default: 0")
    parser.add_argument("--load-cpu", type=int, default=1, help="the processor of load and origin; default: 1")
    parser.add_argument("--quiet", type=float, default=0.15,
                        help="what others may use of the two processors, as a part of one; default: 0.15")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for such quiet; default: 10")
    parser.add_argument("--repeats", type=int, default=2, help="of a measurement without such quiet; default: 2")
    parser.add_argument("--real-time", action="store_true",
                        help="all that is measured goes before other programs: for first-byte-* on a busy machine")
    parser.add_argument("--json", type=Path, default=ROOT / "target/peers/results.json", help="where all figures go")
    parser.add_argument("--no-page", action="store_true", help="print the overview, leave docs/performance.md as it is")
    parser.add_argument("--headline", action="store_true",
                        help="write the table of the best alone, as for a few scenarios; the rest of the page stays")
    parser.add_argument("--again", type=Path, nargs="+", metavar="JSON",
                        help="measure nothing: write the page from these; the last file that has a scenario counts")
    options = parser.parse_args()
    for proxy in options.peer:
        PROXIES[proxy.name] = proxy
        options.proxies.insert(-1, proxy.name)
    return options


def peer(text):
    name, _, binary = text.partition("=")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) or name in PROXIES:
        raise argparse.ArgumentTypeError(f"{name!r}: a name of its own, of small letters, digits, dots and hyphens")
    if not (path := shutil.which(binary)):
        raise argparse.ArgumentTypeError(f"{binary!r} is no program")
    try:
        return built(name, path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def names(known):
    def parse(text):
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return chosen
    return parse


def ended(number, _):
    """Leaves by an exception, so that everything that was started is stopped."""
    sys.exit(f"ended by {signal.Signals(number).name}")


def main():
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, ended)
    if options.again:
        data = join([json.loads(path.read_text(encoding="utf-8")) for path in options.again])
    else:
        if not {options.proxy_cpu, options.load_cpu} <= os.sched_getaffinity(0):
            sys.exit(f"no processors {options.proxy_cpu} and {options.load_cpu} here: see --proxy-cpu and --load-cpu")
        os.sched_setaffinity(0, {options.load_cpu})
        if options.real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # its children inherit it
        data = run(options)
    if tables.measured(data):
        print(tables.summary(data))
    if first_byte.measured(data):
        print(first_byte.section(data))
    if not options.no_page:
        if tables.measured(data) and not options.headline:
            write(ROOT / "docs/performance.svg", plot.draw(data))
        page.update(ROOT / "docs/performance.md", data, "performance.svg", options.headline)
        tell("written: docs/performance.md")


if __name__ == "__main__":
    main()
