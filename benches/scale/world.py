"""Certificates, an origin, an egret: what the parts measure."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from compare import machine
from compare.proxies import NAME

# Listeners have this port and those behind it; the ephemeral ports begin at 16384 in the namespace of the benchmark and at
# 32768 elsewhere.
FIRST = 2000
# The origin is outside of all of these.
ADMIN, TLS, PLAIN, RECORD = 1500, 1501, 1502, 1503
PATIENCE = 60

HEAD = """
drain_timeout = "1s"
log.level = "info"
runtime.workers = {workers}
admin.listen = "127.0.0.1:{admin}"

[identities.client]
certificate = "{certificates}/client.crt"
private_key = "{certificates}/client.key"

[trust.origin]
roots = ["{certificates}/ca.crt"]
"""

UPSTREAM = """
[upstreams.u{at}]
servers = ["127.0.0.1:{to}"]
tls = {{ identity = "client", trust = "origin", server_name = "{name}", key_exchange = ["x25519", "secp256r1"] }}
"""

LISTENER = """
[[listeners]]
listen = "127.0.0.1:{port}"
upstream = "u{upstream}"
"""


class World:
    """One folder with certificates."""

    def __init__(self, egret, tools, folder):
        self.egret, self.tools, self.folder = egret, tools, folder
        self.certificates = folder / "certificates"
        self.certificates.mkdir()
        subprocess.run([tools, "certificates", "--folder", self.certificates], check=True)

    def configuration(self, workers=1, upstreams=1, listeners=None, general="", upstream=""):
        """The path of a file. Every upstream has a listener, where their number is not given. `general` are further lines of
        the whole, `upstream` of each upstream."""
        listeners = listeners or upstreams
        text = [general, HEAD.format(workers=workers, admin=ADMIN, certificates=self.certificates)]
        text += [UPSTREAM.format(at=at, to=TLS, name=NAME) + upstream for at in range(upstreams)]
        text += [LISTENER.format(port=FIRST + at, upstream=at % upstreams) for at in range(listeners)]
        path = self.folder / "egret.toml"
        path.write_text("".join(text))
        return path

    def origin(self, **settings):
        command = [self.tools, "origin", "--certificates", self.certificates]
        command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        for name, port in {"tls": TLS, "plain": PLAIN, "record": RECORD}.items():
            command += [f"--{name}", f"127.0.0.1:{port}"]
        return Child(command, self.folder / "origin.out", RECORD)

    def handshakes(self):
        """So far at the origin: all, and those that were resumed."""
        with socket.create_connection(("127.0.0.1", RECORD), 5) as reading:
            kinds = json.loads(reading.makefile().read())["handshakes"]
        return sum(kinds.values()), sum(count for kind, count in kinds.items() if kind.startswith("Resumed"))

    def proxy(self, path, listeners=1):
        return Egret([self.egret, "run", path], self.folder / "egret.out", FIRST + listeners - 1)

    def load(self, *words, seconds=None, egret=None, processors=(0, 1)):
        """Runs `peers load` to its end; its figures."""
        command = [self.tools, "load", "--to", f"127.0.0.1:{FIRST}", *map(str, words)]
        if seconds:
            command += ["--watch", egret.process.pid, "--own", os.getpid(), "--seconds", seconds, "--warmup", seconds / 3,
                        "--processors", ",".join(map(str, processors))]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"load {words}: {done.stderr.strip()[-300:]}")
        return json.loads(done.stdout) if done.stdout else None

    def begin(self, *words):
        """`peers load` that goes on beside what follows."""
        command = [self.tools, "load", "--to", f"127.0.0.1:{FIRST}", *map(str, words)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Child:
    """A process that ends with the block; `took` are the seconds until it listened."""

    def __init__(self, command, log, port):
        self.command, self.log, self.port = command, log, port

    def __enter__(self):
        began = time.monotonic()
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [str(word) for word in self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
        wait_for_port(self.port, self.process)
        self.took = time.monotonic() - began
        return self

    def __exit__(self, *_):
        machine.stop(self.process)


class Egret(Child):
    """egret at work."""

    def cpu(self):
        """Seconds of CPU time so far, in steps of 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pss_kib(self):
        return self._memory("smaps_rollup", "Pss")

    def peak_kib(self):
        """The most that was resident since `forget_peak`."""
        return self._memory("status", "VmHWM")

    def metric(self, family):
        """The sum of its series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(family + "{"))

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _memory(self, file, field):
        text = Path(f"/proc/{self.process.pid}/{file}").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1])

    def reload(self):
        """The times that egret logs, in seconds, and the instants on the wall clock when it was asked and when it was done."""
        with open(self.log, encoding="utf-8") as log:
            log.seek(0, os.SEEK_END)
            asked, deadline, said = time.time(), time.monotonic() + PATIENCE, ""
            self.process.send_signal(signal.SIGHUP)
            while not (swapped := re.search(r"^.*running generation.*\n", said, re.MULTILINE)):
                if time.monotonic() > deadline:
                    raise RuntimeError("no reload: " + said[-500:])
                time.sleep(0.001)
                said += log.read()
        times = {name: float(value) / 1e3 for name, value in re.findall(r'(\w+)_ms="?([\d.]+)', swapped[0])}
        return {"asked": asked, "done": time.time(), **times}


def wait_for_port(port, process):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with status {process.returncode} before it listened")
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"{process.args[0]} did not listen on {port}")
