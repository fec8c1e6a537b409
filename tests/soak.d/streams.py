"""One stream of a client with what has to come back, and the sums over all streams."""

import hashlib
import random
import socket
import sys
import threading
import time

from server import payload, reset

# A stream that no byte moves on for so long has failed. Egret's own deadlines are shorter.
CLIENT_TIMEOUT = 60
KINDS = ["echo"] * 8 + ["long", "download", "upload", "half_close", "client_reset", "slow_reader"] * 2


class Stream:
    def __init__(self, upstream, kind, seed):
        self.upstream, self.kind, self.seed = upstream, kind, seed
        self.random = random.Random(seed)
        self.received, self.sent, self.error, self.certificate = bytearray(), 0, None, None
        self.messages, self.pause = [], 0
        self.plan()

    def plan(self):
        pick = self.random.randrange
        if self.kind in ("echo", "long", "client_reset"):
            self.verb = "echo"
            self.pause = pick(200, 1000) / 1000 if self.kind == "long" else 0
            self.messages = [self.random.randbytes(pick(1, 16384)) for _ in range(pick(1, 40))]
            self.expected = b"".join(self.messages)
        else:
            length = {"upload": 0, "half_close": pick(65536), "slow_reader": pick(400_000)}.get(self.kind, pick(6_000_000))
            self.expected = payload(self.seed, length)
            self.verb = f"send {length} {self.seed}"
            if self.kind in ("upload", "half_close"):
                self.verb = f"digest {length} {self.seed}"
                self.messages = [self.random.randbytes(pick(3_000_000 if length == 0 else 65536))]
                self.expected = hashlib.sha256(self.messages[0]).hexdigest().encode() + self.expected
        self.client_ends_first = not self.verb.startswith("send")

    def run(self):
        self.oldest_allowed = self.upstream.identity.oldest_allowed
        self.began = time.monotonic()
        try:
            with socket.socket() as sock:
                if self.kind == "slow_reader":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                sock.settimeout(CLIENT_TIMEOUT)
                sock.connect(("127.0.0.1", self.upstream.listen))
                self.talk(sock)
        except OSError as error:
            self.error = error
        self.ended = time.monotonic()

    def talk(self, sock):
        sock.sendall(f"{self.verb}\n".encode())
        reader = sock.makefile("rb", buffering=0)
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := reader.read(1)):
                return
            line += byte
        name, serial = line.decode().split()
        self.certificate = name, int(serial)
        for message in self.messages:
            sock.sendall(message)
            self.sent += len(message)
            while self.verb == "echo" and len(self.received) < self.sent:
                if not self.receive(sock):
                    return
            time.sleep(self.pause)
        if self.kind == "client_reset":
            return reset(sock)
        if self.client_ends_first:
            sock.shutdown(socket.SHUT_WR)
        while self.receive(sock):
            if self.kind == "slow_reader":
                time.sleep(0.05)

    def receive(self, sock):
        chunk = sock.recv(8192 if self.kind == "slow_reader" else 262144)
        self.received += chunk
        return chunk

    def missing(self):
        return max(0, len(self.expected) - len(self.received))

    def wrong(self):
        common = min(len(self.received), len(self.expected))
        if self.received[:common] == self.expected[:common]:
            return len(self.received) - common
        return sum(a != b for a, b in zip(self.received, self.expected)) + len(self.received) - common

    def leaked(self):
        """The server judged another identity than the listener's, or an older certificate than it may."""
        if not self.certificate:
            return False
        name, serial = self.certificate
        return name != self.upstream.identity.name or serial < self.oldest_allowed

    def came_short(self):
        """The end was not what this server owes its client."""
        if self.kind == "client_reset" and not self.error:
            return False
        if self.upstream.fault == "no_close_notify" and not self.client_ends_first:
            # All bytes, and an end that cannot be taken for a clean one.
            return self.missing() > 0 or not isinstance(self.error, ConnectionResetError)
        return self.missing() > 0 or self.error is not None


class Verdicts:
    """The sums over all streams."""

    def __init__(self):
        self.lock = threading.Lock()
        self.streams = self.bytes = self.wrong = self.lost = self.leaks = self.explained = self.unexplained = 0
        self.kinds = {}

    def add(self, stream):
        wrong, leaked, short = stream.wrong(), stream.leaked(), stream.came_short()
        restarted = stream.upstream.restarted_during(stream.began, stream.ended)
        healthy = stream.upstream.fault in ("none", "no_close_notify")
        # A clean end before the last byte. A killed server whose client had ended first is excused: its FIN is
        # what many servers end with. A reset tells the client that bytes are missing.
        silent = short and stream.error is None and not restarted
        with self.lock:
            self.streams += 1
            self.bytes += stream.sent + len(stream.received)
            self.wrong += wrong
            self.lost += max(1, stream.missing()) if silent else 0
            self.leaks += leaked
            self.explained += short and healthy and restarted
            self.unexplained += short and healthy and not restarted
        if wrong or leaked or silent or (short and healthy and not restarted):
            self.report(stream, wrong, leaked)

    def report(self, stream, wrong, leaked):
        print(
            f"soak: stream {stream.kind} of {stream.upstream.name}, seed {stream.seed}: "
            f"wrong {wrong}, missing {stream.missing()} of {len(stream.expected)}, error {stream.error!r}, "
            f"certificate {stream.certificate}, leaked {leaked}, "
            f"{stream.ended - stream.began:.3f} s, ended at {time.strftime('%H:%M:%S', time.gmtime())} UTC",
            file=sys.stderr,
        )
