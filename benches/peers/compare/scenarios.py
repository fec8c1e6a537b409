"""What is measured, in which unit, and what its limit is."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Scenario:
    """One kind of work."""

    name: str
    title: str
    # Words for `peers load`; empty where wrk does the work.
    load: tuple
    # Whether the origin lets sessions be resumed.
    tickets: bool
    # The primary figure: heading, digits behind the point. Smaller is better.
    unit: str
    digits: int
    # The cryptography that comes on top of the plain relay: a key of the limits, or None.
    cryptography: str | None = None
    # Second figures: key, heading, digits.
    columns: tuple = ()
    # Round-trip time between proxy and origin; 0 is loopback.
    rtt_ms: float = 0

    @property
    def bulk(self):
        return self.name.startswith(("up", "down"))


_BULK = (("rate", "GiB/s", 2), ("share", "CPU used", 2))
_CONNECTIONS = (("rate", "connections/s", 0), ("p50_us", "p50 µs", 0), ("p99_us", "p99 µs", 0), ("share", "CPU used", 2))
_TRIPS = (("rate", "round trips/s", 0), ("p50_us", "p50 µs", 0), ("p99_us", "p99 µs", 0), ("share", "CPU used", 2))
_REQUESTS = (("rate", "requests/s", 0), ("p50_us", "p50 µs", 0), ("p99_us", "p99 µs", 0), ("share", "CPU used", 2))


# One new connection every so many milliseconds.
EVERY_MS = 20
# What a pool is to be worth: the first byte takes at most so long, as a part of what a plain TCP relay takes, and so
# many round trips less than without the pool.
FIRST_BYTE_RATIO, FIRST_BYTE_SAVED = 1.15, 2


def _load(work, streams):
    return ("--work", work, "--streams", str(streams))


def _first_byte(rtt_ms):
    return Scenario(
        f"first-byte-{rtt_ms}", f"One new connection every {EVERY_MS} ms, {rtt_ms} ms to the origin and back",
        ("--work", "first-byte", "--every", str(EVERY_MS)), True, "ms to the first byte", 2, rtt_ms=rtt_ms)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("up-1", "Upload, 1 stream", _load("up", 1), False, "CPU s/GiB", 3, "seal_s_gib", _BULK),
        Scenario("up-16", "Upload, 16 streams", _load("up", 16), False, "CPU s/GiB", 3, "seal_s_gib", _BULK),
        Scenario("down-1", "Download, 1 stream", _load("down", 1), False, "CPU s/GiB", 3, "seal_s_gib", _BULK),
        Scenario("down-16", "Download, 16 streams", _load("down", 16), False, "CPU s/GiB", 3, "seal_s_gib", _BULK),
        Scenario("conn", "New connections, 32 at a time, full handshakes", _load("connect", 32), False,
                 "CPU µs each", 0, "full_us", _CONNECTIONS),
        Scenario("conn-resume", "New connections, 32 at a time, the origin gives tickets", _load("connect", 32), True,
                 "CPU µs each", 0, "resumed_us", (("resumed", "resumed", 2), *_CONNECTIONS)),
        Scenario("ping-1", "Round trips of 64 bytes, 1 stream", _load("ping", 1), False,
                 "CPU µs each", 2, None, _TRIPS),
        Scenario("ping-64", "Round trips of 64 bytes, 64 streams", _load("ping", 64), False,
                 "CPU µs each", 2, None, _TRIPS),
        Scenario("ping-1000", "Round trips of 64 bytes, 1000 streams", _load("ping", 1000), False,
                 "CPU µs each", 2, None, _TRIPS),
        Scenario("http", "HTTP: wrk, 64 kept connections, 1 KiB, nginx as the origin", (), True, "CPU µs each", 2, None,
                 _REQUESTS),
        Scenario("idle", "Idle streams: memory of each", ("--work", "idle"), False, "PSS KiB each", 1, None,
                 (("streams", "streams", 0), ("base_kib", "PSS KiB without", 0), ("idle_cpu", "CPU s/s", 3))),
        _first_byte(1),
        _first_byte(20),
    )
}
