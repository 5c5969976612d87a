"""Starts tern serve for a check and stops it again; used by the checks of the server.

The server takes any free port and prints its URL on stdout. On leaving the `with` it gets SIGTERM
and must end with 0: a server that cannot stop is a failed check.
"""

import pathlib
import signal
import subprocess
import urllib.request


class Server:
    def __init__(self, program, model, *options, wrap=()):
        command = [*wrap, program, "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            raise SystemExit(f"{' '.join(map(str, command))}: did not start")
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        if code != 0:
            raise SystemExit(f"the server ended with {code}")

    def metrics(self, key=""):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(self.url + "/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def rss_mib(self):
        """Of the server itself, also when something else (nice) started it."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kib.split()[1]) / 1024
