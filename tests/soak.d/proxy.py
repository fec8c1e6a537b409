"""The egret under test, and what is done to it and its servers meanwhile."""

import collections
import http.client
import os
import pathlib
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time

from streams import CLIENT_TIMEOUT
from upstreams import SERVER_NAME, free_port


class Egret:
    def __init__(self, binary, upstreams):
        self.upstreams, self.admin_port = upstreams, free_port()
        self.generation_text, self.panics, self.log_lines = 0, 0, 0
        self.log_pauses, self.last_lines = queue.Queue(), collections.deque(maxlen=20)
        self.write_configuration()
        self.process = subprocess.Popen([binary, "run", "egret.toml"], stderr=subprocess.PIPE)
        threading.Thread(target=self.read_log, daemon=True).start()
        wait_for("egret is ready", 30, lambda: self.fail_if_ended() or self.admin("GET", "/readyz")[0] == 200)

    def fail_if_ended(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"egret ended with {self.process.returncode}:\n" + "\n".join(self.last_lines))

    def write_configuration(self):
        """Each text differs from the last one, so that a reload has something to do."""
        self.generation_text += 1
        text = f'drain_timeout = "5s"\n[log]\nformat = "json"\n[admin]\nlisten = "127.0.0.1:{self.admin_port}"\n'
        # Rotations are to be over when a reload has answered, so the files are not watched.
        text += '[reload]\nwatch = false\n[trust.soak]\nroots = ["ca.crt"]\n'
        for name in sorted({upstream.identity.name for upstream in self.upstreams}):
            text += f'[identities.{name}]\ncertificate = "{name}.crt"\nprivate_key = "{name}.key"\n'
        for upstream in self.upstreams:
            versions = f'min_version = "{upstream.version}", max_version = "{upstream.version}"'
            text += (
                f'[upstreams.{upstream.name}]\nservers = ["127.0.0.1:{upstream.port}"]\n{upstream.keys}\n'
                f'max_lifetime = "{100 + self.generation_text}m"\n'
                'ejection = { backoff = "200ms", max_backoff = "200ms" }\n'
                f'tls = {{ identity = "{upstream.identity.name}", trust = "soak", server_name = "{SERVER_NAME}", {versions} }}\n'
                f'[[listeners]]\nlisten = "127.0.0.1:{upstream.listen}"\nupstream = "{upstream.name}"\n'
            )
        pathlib.Path("egret.toml").write_text(text)

    def read_log(self):
        for line in self.process.stderr:
            self.log_lines += 1
            self.last_lines.append(line.decode().rstrip())
            if b"panicked" in line:
                self.panics += 1
                print(f"soak: {self.last_lines[-1]}", file=sys.stderr)
            if not self.log_pauses.empty():
                time.sleep(self.log_pauses.get())

    def admin(self, method, path):
        """Status and body; 0 while nothing listens."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=CLIENT_TIMEOUT)
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, family):
        """The sum over all series of a family."""
        pattern = rf"^{family}(?:{{[^\n]*}})? (\S+)$"
        return sum(float(value) for value in re.findall(pattern, self.admin("GET", "/metrics")[1], re.M))

    def reload_by_request(self):
        status, body = self.admin("POST", "/reload")
        if status != 200:
            raise RuntimeError(f"POST /reload answered {status}: {body}")
        return body

    def reload_by_signal(self):
        before = self.metric("egret_generation")
        self.process.send_signal(signal.SIGHUP)
        wait_for("a generation after SIGHUP", 60, lambda: self.metric("egret_generation") > before)

    def resident_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def terminate(self):
        began = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "none within 30 s"
        return code, time.monotonic() - began


def wait_for(what, seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Disturbances:
    def __init__(self, egret, upstreams, identities):
        self.egret, self.upstreams, self.identities = egret, upstreams, identities
        self.restarts = self.reloads = self.rotations = self.broken_files = self.log_pauses = 0
        self.wrong_answers = 0  # to a reload, or none

    def restart(self):
        random.choice(self.upstreams).restart()
        self.restarts += 1

    def reload(self):
        self.egret.write_configuration()
        random.choice([self.egret.reload_by_request, self.egret.reload_by_signal])()
        self.reloads += 1

    def rotate(self):
        identity = random.choice(self.identities)
        identity.renew()
        random.choice([self.egret.reload_by_request, self.egret.reload_by_signal])()
        identity.oldest_allowed = identity.serial
        self.reloads += 1
        self.rotations += 1

    def break_a_file(self):
        """The identity keeps its old certificate, and no stream of any identity notices."""
        identity = random.choice(self.identities)
        pathlib.Path(f"{identity.name}.crt").write_text("-----BEGIN CERTIFICATE-----\nbroken\n")
        answer = self.egret.reload_by_request()
        if "kept" not in answer or identity.name not in answer:
            raise RuntimeError(f"a broken file of {identity.name}, and the reload answered: {answer}")
        time.sleep(2)
        identity.renew()
        self.egret.reload_by_request()
        identity.oldest_allowed = identity.serial
        self.reloads += 2
        self.rotations += 1
        self.broken_files += 1

    def pause_log_reader(self):
        self.egret.log_pauses.put(random.randrange(2, 6))
        self.log_pauses += 1

    def run(self, deadline):
        every = [self.restart, self.reload, self.rotate, self.break_a_file, self.pause_log_reader]
        while time.monotonic() < deadline:
            for disturb in random.sample(every, len(every)):
                try:
                    disturb()
                except RuntimeError as error:
                    self.egret.fail_if_ended()
                    self.wrong_answers += 1
                    print(f"soak: {disturb.__name__}: {error}", file=sys.stderr)
                time.sleep(random.uniform(1, 3))
                if time.monotonic() > deadline:
                    break
