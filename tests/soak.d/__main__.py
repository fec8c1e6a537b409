"""Runs one egret under mixed load, breaks things around it, and checks every stream."""

import argparse
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from proxy import Disturbances, Egret, wait_for
from streams import CLIENT_TIMEOUT, KINDS, Stream, Verdicts
from upstreams import OPENSSL_CONFIG, UPSTREAMS, Identity, Upstream, make_certificate

# Above the number at the start: the warm connections of two pools (4 each), which need not be there yet then.
DESCRIPTOR_SLACK = 8
QUIET_DEADLINE = 60
DEFAULT_BINARY = pathlib.Path("target/release/egret")


def load(upstreams, verdicts, deadline, source):
    while time.monotonic() < deadline:
        stream = Stream(source.choice(upstreams), source.choice(KINDS), source.getrandbits(32))
        stream.run()
        verdicts.add(stream)


def soak(egret, upstreams, identities, options):
    verdicts, disturbances = Verdicts(), Disturbances(egret, upstreams, identities)
    began = time.monotonic()
    start = egret.resident_kib(), egret.descriptors()
    deadline = began + options.duration
    sources = [random.Random(options.seed + number) for number in range(options.streams)]
    clients = [
        threading.Thread(target=load, args=(upstreams, verdicts, deadline, source), daemon=True) for source in sources
    ]
    for client in clients:
        client.start()
    disturbances.run(deadline)
    wait_for("the last streams have ended", 3 * CLIENT_TIMEOUT, lambda: not any(c.is_alive() for c in clients))
    loaded = egret.resident_kib(), egret.descriptors()
    floor = start[1] + DESCRIPTOR_SLACK
    quiet = time.monotonic() + QUIET_DEADLINE
    while egret.descriptors() > floor and time.monotonic() < quiet:
        time.sleep(0.5)
    end = egret.resident_kib(), egret.descriptors()
    panics = egret.panics + int(egret.metric("egret_task_failures_total"))
    dropped = int(egret.metric("egret_log_dropped_total"))
    code, seconds = egret.terminate()
    figures = {
        "seconds": f"{time.monotonic() - began:.0f}",
        "streams": verdicts.streams,
        "bytes": verdicts.bytes,
        "wrong bytes": verdicts.wrong,
        "lost bytes": verdicts.lost,
        "leaks of an identity": verdicts.leaks,
        "streams of healthy servers that failed while their server restarted": verdicts.explained,
        "streams of healthy servers that failed otherwise": verdicts.unexplained,
        "restarts": disturbances.restarts,
        "reloads": disturbances.reloads,
        "rotations": disturbances.rotations,
        "reloads that were answered wrongly": disturbances.wrong_answers,
        "broken files": disturbances.broken_files,
        "pauses of the log's reader": disturbances.log_pauses,
        "lines of the log": f"{egret.log_lines} read, {dropped} dropped",
        "panics": panics,
        "resident KiB": f"{start[0]} at the start, {loaded[0]} after load, {end[0]} after quiet",
        "descriptors": f"{start[1]} at the start, {loaded[1]} after load, {end[1]} after quiet (at most {floor})",
        "exit code after SIGTERM": f"{code} in {seconds:.1f} s",
    }
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    faults = verdicts.wrong + verdicts.lost + verdicts.leaks + verdicts.unexplained + panics + disturbances.wrong_answers
    return faults == 0 and end[1] <= floor and code == 0


def parse_duration(text):
    match = re.fullmatch(r"(\d+)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError("expected a number and s, m or h, such as 3m")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/soak", description=__doc__)
    parser.add_argument("duration", nargs="?", default="1h", type=parse_duration, help="of the load (default 1h)")
    parser.add_argument("--egret", default=DEFAULT_BINARY, type=pathlib.Path, help="binary (default %(default)s)")
    parser.add_argument("--streams", type=int, default=24, help="streams at once (default 24)")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="of the choice of streams")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.egret == DEFAULT_BINARY and not options.egret.exists():
        subprocess.run(["cargo", "build", "--locked", "--release"], check=True)
    egret_binary = options.egret.resolve(strict=True)
    print(f"soak: seed {options.seed}", file=sys.stderr)
    # Interrupted, it still ends what it started and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began_in, upstreams, egret = os.getcwd(), [], None
    with tempfile.TemporaryDirectory(prefix="egret-soak-") as folder:
        os.chdir(folder)
        try:
            pathlib.Path("openssl.cnf").write_text(OPENSSL_CONFIG)
            make_certificate("ca", 1, "authority")
            make_certificate("server", 2)
            identities = {name: Identity(name) for name in ("alpha", "beta")}
            for identity in identities.values():
                identity.renew()
            upstreams = [Upstream(name, identities[who], *rest) for name, who, *rest in UPSTREAMS]
            for upstream in upstreams:
                upstream.start()
            egret = Egret(egret_binary, upstreams)
            return 0 if soak(egret, upstreams, list(identities.values()), options) else 1
        finally:
            if egret:
                egret.process.kill()
            for upstream in upstreams:
                upstream.stop()
            os.chdir(began_in)


if __name__ == "__main__":
    sys.exit(main())
