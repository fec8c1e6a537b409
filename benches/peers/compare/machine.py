"""The machine: a network of its own, processors, processes, and the facts that belong to a result."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def revision(root):
    """The last commit of the checkout at `root` that changed what is measured, and whether its files differ from it."""
    def git(*words):
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False).stdout.strip()
    # Cargo.toml has the profile: link-time optimization is part of what is measured.
    sources = ("--", "src", "Cargo.lock", "Cargo.toml")
    commit = git("log", "-1", "--format=%h", "--abbrev=12", *sources) or "no commit"
    return commit + (" with changes" if git("status", "--porcelain", *sources) else "")


def own_network():
    """Moves this process into a network namespace with nothing but loopback, where that is allowed. Says what
    became of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        user, group = os.getuid(), os.getgid()
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return "the machine's loopback (no right to a network namespace)"
        # The same user inside: a proxy that thinks it is root would try to become another one.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _up(b"lo")
    ipv4 = Path("/proc/sys/net/ipv4")
    _try_write(ipv4 / "ip_local_port_range", "16384 65535")  # tens of thousands of connections to one address
    # Without pacing: BBR's timers would be in the figures. A namespace may not have every algorithm.
    if not _try_write(ipv4 / "tcp_congestion_control", "cubic"):
        _try_write(ipv4 / "tcp_congestion_control", "reno")
    return "loopback in a network namespace of its own, " + (ipv4 / "tcp_congestion_control").read_text().strip()


def _up(device):
    get_flags, set_flags, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, get_flags, struct.pack("16sh14x", device, 0))
        flags = struct.unpack("16sh14x", answer)[1] | up
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", device, flags))


# The two ends of the path that has a round-trip time.
NEAR, FAR = "192.0.2.1", "192.0.2.2"


def path_device():
    """A new TUN device, whose packets are read from and written to the descriptor that is returned. It is at `NEAR`,
    and whatever is sent to `FAR` leaves through it."""
    create, set_address, set_mask = 0x400454CA, 0x8916, 0x891C  # TUNSETIFF, SIOCSIFADDR, SIOCSIFNETMASK
    tun, without_header = 0x0001, 0x1000  # IFF_TUN, IFF_NO_PI
    name = b"path"
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, create, struct.pack("16sH22x", name, tun | without_header))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for request, address in ((set_address, NEAR), (set_mask, "255.255.255.252")):
            fields = (name, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(any_socket, request, struct.pack("16sHH4s8x", *fields))
    _up(name)
    return device


def _try_write(path, text):
    try:
        path.write_text(text)
        return True
    except OSError:
        return False


def facts():
    """What a result means nothing without."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    cpu = dict((part.strip() for part in line.split(":", 1)) for line in first.splitlines() if ":" in line)
    known = ("aes", "vaes", "vpclmulqdq", "avx512f", "asimd", "pmull")
    words = cpu.get("flags", cpu.get("Features", "")).split()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    model = cpu.get("model name", "unknown")
    if model == "unknown" or "family" not in model:
        model += f" (family {cpu.get('cpu family', '?')}, model {cpu.get('model', '?')})"
    return {
        "cpu": f"{model}, {' '.join(flag for flag in known if flag in words)}",
        "cpus": os.cpu_count(),
        "memory_gib": round(memory),
        "virtual": "hypervisor" in words,
        "kernel": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def busy(processors, seconds):
    """The part of these processors that was busy over a while."""
    def sample():
        total = idle = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *times = line.split()
            if name in {f"cpu{number}" for number in processors}:
                times = [int(field) for field in times[:8]]
                total, idle = total + sum(times), idle + times[3] + times[4]
        return total, idle

    total, idle = sample()
    time.sleep(seconds)
    total_end, idle_end = sample()
    return 1 - (idle_end - idle) / max(1, total_end - total)


def start(command, cpu, log, stdin=subprocess.DEVNULL):
    """A child of ours on one processor, with a session of its own."""
    return subprocess.Popen(
        command, stdin=stdin, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )


def stop(process):
    """Ends a child that `start` began, and what it may have left in its session."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_for_port(port, process, seconds=20):
    """Until a child listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with status {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{process.args[0]} did not listen on {port}")
