"""Clients that speak plaintext, as small as they can be: what is measured is egret."""
import os, socket, struct, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/python"))
try:
    import pymysql
except ImportError:
    sys.exit("benches/databases/run: python3 -m pip install --target target/python 'PyMySQL==1.1.1'")


class Session:
    """A session of PostgreSQL without authentication by password."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.file = self.socket.makefile("rb")
        body = b"\0\x03\0\0user\0app\0database\0postgres\0\0"
        self.socket.sendall(struct.pack(">I", len(body) + 4) + body)
        self.key = b""
        self.until(b"Z")

    def until(self, wanted):
        """Reads messages up to one of this type; returns the text of an error on the way."""
        error = None
        while True:
            head = self.file.read(5)
            if len(head) < 5:
                raise ConnectionError("the session has ended")
            kind, body = head[:1], self.file.read(struct.unpack(">I", head[1:])[0] - 4)
            if kind == b"K":
                self.key = body
            if kind == b"E":
                error = body
                if b"FATAL" in body:
                    raise ConnectionError(body)
            if kind == wanted:
                return error

    def send(self, text):
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack(">I", len(body) + 4) + body)

    def query(self, text):
        self.send(text)
        return self.until(b"Z")

    def cancel(self, port):
        """Asks as libpq does, and waits for the server's close."""
        with socket.create_connection(("127.0.0.1", port), 60) as request:
            request.sendall(struct.pack(">II", 8 + len(self.key), 80877102) + self.key)
            request.recv(1)

    def close(self):
        self.socket.sendall(b"X\0\0\0\x04")
        self.file.read()
        self.socket.close()


def postgres(port):
    session = Session(port)
    session.query("select 1")
    session.close()


def mariadb(port, user="app", tls=None, **more):
    client = pymysql.connect(host="127.0.0.1", port=port, user=user, password="secret", **(tls or {}), **more)
    with client.cursor() as cursor:
        cursor.execute("select 1")
        cursor.fetchall()
    client.close()
