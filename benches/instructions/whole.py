"""Instructions of egret itself, the whole program, for a connection, a round trip, a MiB. Load and origin are processes of
their own, outside of valgrind: nothing of them is counted."""

import os
import re
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from compare.cell import Stage
from compare.proxies import EGRET

# Kind of work, units that are counted, whether the origin gives tickets. What happens once at start, and what timers do
# beside it, is below a hundredth of so many.
WHOLE = {
    "connection_full": ("connect", 100, False),
    "connection_resumed": ("connect", 200, True),
    "round_trip_64": ("ping", 2000, False),
    "mib_up": ("up", 48, False),
    "mib_down": ("down", 48, False),
}
# Of each kind before it is counted: buffers have their sizes then, and the store its tickets.
WARM_UP = 16
BULK = ("up", "down")
# Of so many counts the least: what comes at once is a matter of time. Of six counts of a MiB down three were 3.2 million and
# three 4.05; a MiB up differs by 0.2 %.
TIMES = {"mib_down": 5}

UNDER_VALGRIND = replace(EGRET, command=(
    "valgrind", "--tool=callgrind", "--callgrind-out-file=@FOLDER@/profile", "--vgdb-prefix=@FOLDER@/vgdb", *EGRET.command))


class Setup:
    """What `Stage` asks for."""

    def __init__(self, root, folder, program):
        self.tools = str(root / "target/peers/release/peers")
        self.values = {"ROOT": root, "TOOLS": self.tools}
        self.folder, self.certificates = folder, folder / "certificates"
        self.programs = {EGRET.name: program}
        cpus = sorted(os.sched_getaffinity(0))
        self.proxy_cpu, self.load_cpu = cpus[0], cpus[-1]
        self.certificates.mkdir()
        subprocess.run([self.tools, "certificates", "--folder", self.certificates], check=True)


def count(root, program, name):
    """Instructions of one unit; its allocations where they are no matter of how much came at once."""
    counts = [count_once(root, program, name) for _ in range(TIMES.get(name, 1))]
    return min(counts, key=lambda count: count[name])


def count_once(root, program, name):
    kind, units, tickets = WHOLE[name]
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        setup = Setup(root, Path(folder), program)
        with Stage(setup, UNDER_VALGRIND, bulk=kind in BULK, tickets=tickets) as stage, Load(stage, kind) as load:
            load.portion(WARM_UP)
            profile(stage)
            load.portion(units)
            counted = profile(stage)
    counts = {name: instructions(counted) // units}
    if kind in ("connect", "ping"):
        counts[f"{name}_allocations"] = round(allocations(counted) / units)
    return counts


class Load:
    """A client that works in portions."""

    def __init__(self, stage, kind):
        self.stage, self.command = stage, [
            stage.setup.tools, "load", "--to", f"127.0.0.1:{stage.listen}", "--work", "portions", "--of", kind]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answered("ready")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    def portion(self, units):
        self.process.stdin.write(f"{units}\n")
        self.process.stdin.flush()
        self.answered("done")
        quiesce(self.stage.process.pid)

    def answered(self, word):
        line = self.process.stdout.readline().strip()
        if line != word:
            raise RuntimeError(f"load said {line!r} where {word!r} was due")


def quiesce(pid, seconds=60):
    """Until the process has nothing to do: 0.3 s without a tick of CPU time."""
    def ticks():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    deadline, last, since = time.monotonic() + seconds, ticks(), time.monotonic()
    while time.monotonic() - since < 0.3:
        if time.monotonic() > deadline:
            raise RuntimeError("egret does not come to rest")
        time.sleep(0.05)
        if (now := ticks()) != last:
            last, since = now, time.monotonic()


def profile(stage):
    """What all threads did since the last call."""
    folder = stage.folder
    before = set(folder.glob("profile*"))
    subprocess.run(["vgdb", f"--vgdb-prefix={folder}/vgdb", f"--pid={stage.process.pid}", "dump"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    (fresh,) = set(folder.glob("profile*")) - before
    return fresh.read_text()


def instructions(text):
    return int(re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)[1])


ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"}


def allocations(text):
    """Calls of the C library's allocator. A name is written at its first occurrence only, a number stands for it later."""
    names, callee, calls = {}, None, 0
    for line in text.splitlines():
        if named := re.match(r"c?fn=\((\d+)\)(?: (.*))?$", line):
            number, name = named.groups()
            if name:
                names[number] = name
            if line.startswith("c"):
                callee = names[number]
        elif line.startswith("calls=") and callee in ALLOCATORS:
            calls += int(line[6:].split()[0])
    return calls
