"""A server that requires client certificates and reports the one it judged; `python3 server.py PORT VERSION FAULT`."""

import hashlib
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time


def reset(sock):
    """Closes with RST in place of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def payload(seed, length):
    return random.Random(seed).randbytes(length)


class Fault(Exception):
    """The moment at which a faulty server shows its fault."""


class Conversation:
    """One connection: a line `echo`, `digest LENGTH SEED` or `send LENGTH SEED`, and its answer."""

    def __init__(self, tls, fault):
        self.tls, self.fault = tls, fault
        self.reader = tls.makefile("rb")
        self.faultless_bytes = None
        if fault in ("resets", "stalls") and random.random() < 0.5:
            self.faultless_bytes = random.randrange(300_000)

    def moved(self, count):
        if self.faultless_bytes is not None:
            self.faultless_bytes -= count
            if self.faultless_bytes < 0:
                raise Fault

    def send(self, data):
        for start in range(0, len(data), 32768):
            chunk = data[start : start + 32768]
            self.moved(len(chunk))
            self.tls.sendall(chunk)

    def chunks(self):
        while chunk := self.reader.read1(65536):
            self.moved(len(chunk))
            yield chunk

    def answer(self):
        verb, *numbers = self.reader.readline().decode().split() or [""]
        certificate = self.tls.getpeercert()
        names = dict(pair for part in certificate["subject"] for pair in part)
        self.tls.sendall(f"{names['commonName']} {int(certificate['serialNumber'], 16)}\n".encode())
        if verb == "echo":
            for chunk in self.chunks():
                self.send(chunk)
            return
        length, seed = map(int, numbers)
        if verb == "digest":
            digest = hashlib.sha256()
            for chunk in self.chunks():
                digest.update(chunk)
            self.send(digest.hexdigest().encode())
        self.send(payload(seed, length))

    def run(self):
        try:
            self.answer()
            if self.fault != "no_close_notify":
                self.tls.unwrap()
        except Fault:
            if self.fault == "resets":
                reset(self.tls)
            else:
                time.sleep(20)


def serve_connection(connection, context, fault):
    connection.settimeout(120)
    try:
        # A FIN without close_notify must not pass for the end of an upload.
        tls = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        with tls:
            conversation = Conversation(tls, fault)
            with conversation.reader:
                conversation.run()
    except (OSError, ValueError):
        connection.close()  # a warm connection that is given up, a client that has reset


def serve(port, version, fault):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[version]
    context.load_cert_chain("server.crt", "server.key")
    context.load_verify_locations("ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    print("ready", flush=True)
    # The pipe closes when the parent ends, however it ends.
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        arguments = (connection, context, fault)
        threading.Thread(target=serve_connection, args=arguments, daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
