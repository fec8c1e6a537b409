"""One measurement: a fresh origin, a fresh proxy, one window."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from . import machine
from .proxies import HTTP_ORIGIN, NAME, fill
from .scenarios import GIB

# Streams of `idle`, if the limit of open files lets a proxy have so many: two descriptors each.
IDLE = min(9000, (machine.FILES - 1000) // 2)


class Stage:
    """Origin and proxy, running as long as the block lasts."""

    _ports = 10_000

    def __init__(self, setup, proxy, *, bulk=False, tickets=False, show="origin", http=False, rtt_ms=0):
        self.setup, self.proxy = setup, proxy
        self.children = []
        # Below the range of outgoing connections; never the same twice in a row, so that nothing has to wait
        # for old connections to be forgotten.
        Stage._ports = 10_000 + (Stage._ports + 4 - 10_000) % 6_000
        self.listen, self.tls, self.plain, self.record_port = range(Stage._ports, Stage._ports + 4)
        self.origin = {"tickets": str(tickets).lower(), "show": show}
        self.bulk, self.http, self.rtt_ms = bulk, http, rtt_ms

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.proxy.name}-", dir=self.setup.folder))
        self.folder.chmod(0o755)  # nginx's workers are another user
        try:
            if self.rtt_ms:
                self._start_path()
            self._start_origin()
            self._start_proxy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            machine.stop(child)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self, name, command, cpu, port):
        with open(self.folder / f"{name}.out", "w", encoding="utf-8") as log:
            child = machine.start(command, cpu, log)
        self.children.append(child)
        machine.wait_for_port(port, child)
        return child

    @property
    def near(self):
        """The address that the origin has."""
        return machine.NEAR if self.rtt_ms else "127.0.0.1"

    @property
    def behind(self):
        """The address by which the origin is reached."""
        return machine.FAR if self.rtt_ms else "127.0.0.1"

    def _start_path(self):
        device = machine.path_device()
        try:
            command = [self.setup.tools, "path", "--micros", str(int(self.rtt_ms * 1000))]
            with open(self.folder / "path.out", "w", encoding="utf-8") as log:
                self.children.append(machine.start(command, self.setup.load_cpu, log, device))
        finally:
            os.close(device)

    def _start_origin(self):
        if self.http:
            (self.folder / "www").mkdir()
            (self.folder / "www" / "1k").write_text("x" * 1024)
            ports = {"TLS": self.tls, "PLAIN": self.plain}
            file, log = self.folder / "origin.conf", self.folder / "origin.log"
            file.write_text(fill(HTTP_ORIGIN, {"FOLDER": self.folder, "CERTIFICATES": self.setup.certificates, **ports}))
            command = ["/usr/sbin/nginx", "-p", self.folder, "-e", log, "-c", file]
            self._launch("origin", command, self.setup.load_cpu, self.tls)
            return
        command = [self.setup.tools, "origin", "--certificates", self.setup.certificates]
        for name, value in self.origin.items():
            command += [f"--{name}", value]
        for name, port in {"tls": self.tls, "plain": self.plain}.items():
            command += [f"--{name}", f"{self.near}:{port}"]
        command += ["--record", f"127.0.0.1:{self.record_port}"]
        self._launch("origin", command, self.setup.load_cpu, self.record_port)

    def _start_proxy(self):
        values = {
            **self.setup.values, "PROGRAM": self.setup.programs[self.proxy.name], "FOLDER": self.folder,
            "CERTIFICATES": self.setup.certificates, "LISTEN": self.listen, "NAME": NAME,
            "TO": f"{self.behind}:{self.plain if self.proxy.plain else self.tls}", "HOST": self.behind, "PORT": self.tls,
            "FILES": machine.FILES, "STREAMS": (machine.FILES - 200) // 2,
            # What serves each kind of work best: the references are to be hard to beat.
            "BUFFER": 64 << 10 if self.bulk or self.proxy.plain else 8 << 10,
            # The defaults of nginx and HAProxy where it is not bulk.
            "BUFFERKIB": 64 if self.bulk else 16, "BUFFERBYTES": 64 << 10 if self.bulk else 16 << 10,
        }
        if self.proxy.file:
            (self.folder / self.proxy.file).write_text(fill(self.proxy.text, values))
        command = [fill(word, values) for word in self.proxy.command]
        self.process = self._launch("proxy", command, self.setup.proxy_cpu, self.listen)

    def load(self, *words, seconds=None):
        """Runs `peers load` to its end. With `seconds` it measures, and its figures are returned."""
        command = [self.setup.tools, "load", "--to", f"127.0.0.1:{self.listen}", *words]
        if seconds:
            command += ["--watch", str(self.process.pid), "--own", str(os.getpid()), "--seconds", str(seconds),
                        "--warmup", str(self.setup.warmup),
                        "--processors", f"{self.setup.proxy_cpu},{self.setup.load_cpu}"]
        # A minute above the longest: ten thousand streams through a proxy that makes a thread of each.
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False,
                              preexec_fn=lambda: os.sched_setaffinity(0, {self.setup.load_cpu}))
        if done.returncode != 0:
            raise RuntimeError(f"load {' '.join(words)}: {done.stderr.strip()[-300:]}")
        return json.loads(done.stdout) if done.stdout else None

    def record(self):
        """What the origin has seen so far."""
        with socket.create_connection(("127.0.0.1", self.record_port), 5) as reading:
            return json.loads(reading.makefile().read())


def measure(setup, proxy, scenario):
    """The figures of one cell; {"failed": why} if there are none."""
    http = not scenario.load
    try:
        with Stage(setup, proxy, bulk=scenario.bulk, tickets=scenario.tickets, http=http,
                   rtt_ms=scenario.rtt_ms) as stage:
            if http:
                result = _wrk(stage)
            else:
                stage.load("--work", "check")
                result = WORK.get(scenario.load[1], _window)(stage, scenario)
                if not proxy.plain:
                    result["handshakes"] = stage.record()["handshakes"]
                    result["resumed"] = _resumed(result["handshakes"])
            if stage.process.poll() is not None:
                raise RuntimeError(f"{proxy.name} ended with status {stage.process.returncode} while it was measured")
            return result
    except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return {"failed": str(error)}


def _window(stage, scenario):
    raw = stage.load(*scenario.load, seconds=stage.setup.seconds)
    if raw["units"] == 0 or raw["failures"] > raw["units"] / 100:
        raise RuntimeError(f"{raw['failures']} failures, {raw['units']} units of work")
    return _figures(raw, raw["units"], GIB if scenario.bulk else 1)


def _figures(raw, units, unit):
    """CPU time for each unit of work: in seconds for GiB, else in microseconds."""
    cpu, seconds = raw["user"] + raw["system"], raw["seconds"]
    cost = cpu / (units / unit)
    return {
        "cost": cost if unit == GIB else cost * 1e6, "rate": units / unit / seconds, "share": cpu / seconds,
        "system_share": raw["system"] / cpu if cpu else 0, "foreign": raw["foreign"] / seconds,
        "failures": raw["failures"], "p50_us": raw["p50_us"], "p99_us": raw["p99_us"],
    }


def _first_byte(stage, scenario):
    raw = stage.load(*scenario.load, "--behind", f"{stage.behind}:{stage.plain}", seconds=stage.setup.seconds)
    if raw["failures"]:
        raise RuntimeError(f"{raw['failures']} failures, {raw['units']} connections")
    figures = _figures(raw, raw["units"], 1)
    return {**figures, "cpu_us": figures["cost"], "cost": raw["p50_us"] / 1e3, "p90_ms": raw["p90_us"] / 1e3,
            "p99_ms": raw["p99_us"] / 1e3, "round_trip_ms": raw["round_trip_us"] / 1e3}


def _idle(stage, _):
    raw = stage.load("--work", "idle", "--streams", str(IDLE), "--watch", str(stage.process.pid))
    if raw["failures"]:
        raise RuntimeError(f"{raw['failures']} of {IDLE} idle streams were closed")
    return {"cost": raw["kib_each"], "base_kib": raw["base_kib"], "streams": raw["streams"], "idle_cpu": raw["idle_cpu"],
            "foreign": 0}


# What is not measured in a window of saturating load.
WORK = {"idle": _idle, "first-byte": _first_byte}


def _resumed(handshakes):
    """The part that was resumed. The first connections cannot be, but they are few."""
    total = sum(handshakes.values())
    return sum(count for kind, count in handshakes.items() if kind.startswith("Resumed")) / total if total else 0


def _wrk(stage):
    url = f"http://127.0.0.1:{stage.listen}/1k"
    with urllib.request.urlopen(url, timeout=10) as answer:
        if answer.read() != b"x" * 1024:
            raise RuntimeError("a wrong answer")
    # wrk's time has no end between two seconds, and it has no time to warm up.
    raw = stage.load("--work", "http", "--url", url, seconds=stage.setup.seconds + 1)
    return _figures(raw, raw["units"], 1)
