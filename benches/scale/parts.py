"""What is measured, range by range. Each part returns its points: what was varied, and the figures there."""

import json
import shutil
import subprocess
import time
from statistics import median

from compare import machine

# A stream costs egret two descriptors; listeners, warm connections and files have the rest.
MOST_STREAMS = min(15_000, (machine.FILES - 2_000) // 2)
# Round trips a second, over all streams: a tenth of what a worker can carry, so that others' work shows as waiting.
RATE = 5_000
# Of an upstream with one address.
TICKETS = 256


def rounds(quick):
    return 1 if quick else 3


def window(quick):
    """Seconds. CPU time has steps of 10 ms, of which a window has dozens."""
    return 0.3 if quick else 1


def connections(world, egret, ports, quick):
    """CPU microseconds of a new connection, several windows."""
    costs = []
    for _ in range(rounds(quick)):
        raw = world.load("--work", "connect", "--streams", 32, "--ports", ports, seconds=window(quick), egret=egret)
        if raw["failures"] or not raw["units"]:
            raise RuntimeError(f"{raw['failures']} failures, {raw['units']} connections")
        costs.append((raw["user"] + raw["system"]) / raw["units"] * 1e6)
    return costs


def workers(world, quick):
    points = []
    for count in (1, 2):
        with world.origin(), world.proxy(world.configuration(workers=count)) as egret:
            points.append({"at": count, "us": connections(world, egret, 1, quick)})
    return points


def upstreams(world, quick):
    """Each upstream has a listener: there is no other way to an upstream with TLS."""
    points = []
    for count in (1, 10, 100) if quick else (1, 10, 100, 1_000, 10_000):
        path = world.configuration(upstreams=count)
        with world.origin(), world.proxy(path, count) as egret:
            points.append({"at": count, "us": connections(world, egret, count, quick)})
    return points


def listeners(world, quick):
    points = []
    for count in (1, 10, 100) if quick else (1, 10, 100, 1_000):
        path = world.configuration(listeners=count)
        with world.origin(), world.proxy(path, count) as egret:
            points.append({"at": count, "us": connections(world, egret, count, quick)})
    return points


def between(count):
    """Milliseconds between two round trips of one stream out of so many."""
    return max(1, count * 1000 // RATE)


def flow(world, count, seconds):
    """Round trips on so many streams, together `RATE` a second; returns once they flow."""
    every = between(count)
    load = world.begin("--work", "beat", "--streams", count, "--every", every, "--seconds", seconds)
    if load.stdout.readline() != "flowing\n":
        load.wait()
        raise RuntimeError("the streams did not open")
    return load


def streams(world, quick):
    points = []
    for count in (10, 100) if quick else (10, 100, 1_000, 5_000, MOST_STREAMS):
        with world.origin(), world.proxy(world.configuration()) as egret:
            before, costs, seconds = egret.pss_kib(), [], 2 * window(quick)
            load = flow(world, count, seconds * rounds(quick) + 1)
            time.sleep(0.5)
            for _ in range(rounds(quick)):
                began, cpu = time.monotonic(), egret.cpu()
                time.sleep(seconds)
                # The load keeps the rate, or the latencies say that it did not.
                trips = count * 1000 / between(count) * (time.monotonic() - began)
                costs.append((egret.cpu() - cpu) / trips * 1e6)
            kib = (egret.pss_kib() - before) / count
            seen = finish(load)
            points.append({"at": count, "us": costs, "kib": kib, **latencies(seen["trips"]), "cut": seen["cut"]})
    return points


def tickets(world, quick):
    """Tickets that all stores hold together; each upstream has one, of at most 256 tickets for an address."""
    points = []
    for count in (1, 100, 600) if quick else (1, 100, 1_000, 10_000, 100_000):
        upstreams = -(-count // TICKETS)
        path = world.configuration(upstreams=upstreams)
        # The first handshakes bring 32 tickets each, of which all but the very first take one.
        fills = 0 if count == 1 else -(-count // 31) + upstreams
        with world.origin(tickets="true", each=1, generous=fills) as _, world.proxy(path, upstreams) as egret:
            before = egret.pss_kib()
            portion(world, upstreams, max(1, fills))
            kib, costs, shaken = egret.pss_kib() - before, [], world.handshakes()
            for _ in range(rounds(quick)):
                cpu, units = egret.cpu(), 50 if quick else 1_000
                portion(world, upstreams, units)
                costs.append((egret.cpu() - cpu) / units * 1e6)
            total, resumed = (now - then for now, then in zip(world.handshakes(), shaken))
            points.append({"at": count, "us": costs, "mib": kib / 1024, "held": egret.metric("egret_sessions"),
                           "resumed": resumed / total})
    return points


def portion(world, ports, units):
    """So many connections, one after the other."""
    load = world.begin("--work", "portions", "--of", "connect", "--ports", ports)
    out, _ = load.communicate(f"{units}\n", timeout=60)
    if out.split() != ["ready", "done"]:
        raise RuntimeError(f"the load said {out!r}")


def configuration(world, quick):
    """Check, start, memory and reload of configurations of some size; the reload finds the client's certificate replaced."""
    points = []
    for count in (1, 10, 100) if quick else (1, 100, 1_000, 10_000):
        path = world.configuration(upstreams=count)
        point = {"at": count, "kib": path.stat().st_size / 1024, "check": timed(world.egret, "check", path)}
        with world.origin(), world.proxy(path, count) as egret:
            time.sleep(0.2)
            point |= {"start": egret.took, "mib": egret.pss_kib() / 1024}
            egret.forget_peak()
            same = egret.reload()
            other_certificate(world)
            changed = egret.reload()
            time.sleep(0.2)
            point |= {"same": same, "changed": changed, "peak_mib": egret.peak_kib() / 1024, "mib_after": egret.pss_kib() / 1024}
        points.append(point)
    return points


def timed(*command):
    began = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    return time.monotonic() - began


def other_certificate(world):
    """Another client certificate of the same authority takes the place of the first; the next call changes them back."""
    for end in ("key", "crt"):
        now, following = (world.certificates / f"{name}.{end}" for name in ("client", "next-client"))
        kept = now.with_suffix(".kept")
        shutil.copy(now, kept)
        following.rename(now)
        kept.rename(following)


def reload(world, quick):
    """Streams flow while the configuration is loaded anew, unchanged and with another certificate."""
    points = []
    most = 200 if quick else min(5_000, MOST_STREAMS)
    for count in (1, 100) if quick else (1, 100, 1_000, 10_000):
        for is_changed in (False,) if quick else (False, True):
            path = world.configuration(upstreams=count)
            now = min(most, (machine.FILES - count - 2_000) // 2)
            with world.origin(), world.proxy(path, count) as egret:
                time.sleep(0.2)
                load = flow(world, now, 4 if quick else 7)
                time.sleep(0.5 if quick else 1)
                begin = time.time()
                time.sleep(1 if quick else 2)
                if is_changed:
                    other_certificate(world)
                swap = egret.reload()
                seen = finish(load)
            before = [trip for trip in seen["trips"] if begin <= trip[0] < swap["asked"] - 0.1]
            during = [trip for trip in seen["trips"] if trip[0] + trip[1] / 1e6 >= swap["asked"] and trip[0] <= swap["done"] + 0.05]
            points.append({"at": count, "streams": now, "changed": is_changed, "swap": swap, "cut": seen["cut"],
                           "before": latencies(before), "during": latencies(during)})
    return points


def finish(load):
    out, _ = load.communicate(timeout=60)
    return json.loads(out)


def latencies(trips):
    micros = sorted(trip[1] for trip in trips)
    if not micros:
        return {"p50": None, "p99": None, "max": None}
    return {"p50": median(micros), "p99": micros[int(len(micros) * 0.99)], "max": micros[-1]}


ALL = {part.__name__: part for part in (workers, upstreams, listeners, streams, tickets, configuration, reload)}
