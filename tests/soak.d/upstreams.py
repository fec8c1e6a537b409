"""The servers behind egret, and the certificates."""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time

SERVER_NAME = "server.example.com"
# After a restart the first streams may still be refused: the address is ejected (200 ms, and a quarter of
# that by chance), and one stream at a time tries it.
RESTART_GRACE = 3
SERVER = pathlib.Path(__file__).resolve().parent / "server.py"

# name, identity, versions of TLS, what is wrong with the server, further keys of the upstream
UPSTREAMS = [
    ("plain12", "alpha", "1.2", "none", ""),
    ("plain13", "beta", "1.3", "none", ""),
    ("pooled", "alpha", "1.3", "none", "pool = { min_idle = 1, max_idle = 4 }"),
    ("pooled12", "beta", "1.2", "none", "pool = { min_idle = 1, max_idle = 4 }"),
    ("ragged", "alpha", "1.3", "no_close_notify", ""),
    ("resets", "beta", "1.3", "resets", ""),
    ("stalls", "alpha", "1.2", "stalls", 'idle_timeout = "5s"'),
]


class Identity:
    def __init__(self, name):
        self.name = name
        self.serial = 1000  # of the newest files
        self.oldest_allowed = 1000  # no stream that begins now may show an older one

    def renew(self):
        self.serial += 1
        make_certificate(self.name, self.serial)


class Upstream:
    def __init__(self, name, identity, version, fault, keys):
        self.name, self.identity, self.version, self.fault, self.keys = name, identity, version, fault, keys
        self.port, self.listen = free_port(), free_port()
        self.restarts = []  # pairs of times
        self.process = None

    def start(self):
        command = [sys.executable, "-B", SERVER, str(self.port), self.version, self.fault]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"server {self.name} did not start")

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def restart(self):
        began = time.monotonic()
        self.restarts.append((began, float("inf")))
        self.stop()
        time.sleep(random.random())
        self.start()
        self.restarts[-1] = (began, time.monotonic() + RESTART_GRACE)

    def restarted_during(self, began, ended):
        return any(start <= ended and began <= end for start, end in self.restarts)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


OPENSSL_CONFIG = f"""
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:{SERVER_NAME}
"""


def make_certificate(name, serial, extensions="leaf"):
    signer = [] if extensions == "authority" else ["-CA", "ca.crt", "-CAkey", "ca.key"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-config", "openssl.cnf", "-extensions", extensions, *signer, *new]
        + ["-set_serial", str(serial), "-subj", f"/CN={name}", "-keyout", "new.key", "-out", "new.crt"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    os.chmod("new.key", 0o600)
    os.replace("new.key", f"{name}.key")
    os.replace("new.crt", f"{name}.crt")
