"""A place under test: the shipped gateway as a process, and the home beside it."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import hub
from home import Home

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "external"
GATEWAY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "causeway"
STACK, PEER, TENANT = "stk_tested", "stk_home", "tnt_demo"
SCOPES = "runs:forward,runs:read,runs:cancel,events:read,events:ingest"


class Failed(Exception):
    """What was promised did not happen."""


def check(holds, otherwise):
    """Raises unless it holds."""
    if not holds:
        raise Failed(otherwise)


def until(what, happened, patience=30.0):
    """Waits for another process: polls, and gives up loudly."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if result := happened():
            return result
        time.sleep(0.02)
    raise Failed(f"{patience:.0f} s went by without this: {what}")


def free_port():
    """A port of nobody: below those that the kernel gives to connections, so that none takes it before it is bound."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Failed("of a hundred ports none is free")


def is_ready(url):
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Place:
    """A gateway of a profile, on a port it keeps over restarts."""

    def __init__(self, profile, server=""):
        self.home, self.hub = Home(), hub.Hub()
        self.directory = Path(tempfile.mkdtemp(prefix="causeway-", dir=WORK))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = self.directory / "gateway.toml"
        tenant = f'default_tenant = "{TENANT}"' if profile == "dev" else ""
        self.config.write_text(
            f"""
[gateway]
profile = "{profile}"
stack_id = "{STACK}"
{tenant}
data_dir = "{self.directory}/data"
[server]
listen = "127.0.0.1:{self.port}"
{server}
[events]
retry = "200ms"
[limits]
failed_logins = ""
[audit]
sink = "file:{self.directory}/audit.jsonl"
[introductions]
hubs = [{{ name = "{hub.NAME}", public_key = "{self.hub.public_key}", domains = ["default"] }}]
max_pending = 1000
[[peers]]
peer_id = "{PEER}"
base_url = "{self.home.url}"
local = true
tenants = ["*"]
allowed_addresses = ["127.0.0.1/32"]
"""
        )
        self.profile = profile
        self.process = None
        self.client = None

    def __enter__(self):
        self.start()
        if self.profile == "prod":
            self.client = self.token()
        return self

    def __exit__(self, kind, *_):
        self.kill()
        if kind is None:
            shutil.rmtree(self.directory)

    def start(self):
        with open(self.directory / "gateway.log", "ab") as log:
            command = [GATEWAY, "serve", "--config", self.config]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(f"the gateway is ready; see {log.name}", lambda: is_ready(self.url) or self._is_over())
        check(self.process.poll() is None, f"the gateway did not start; see {log.name}")

    def _is_over(self):
        return self.process.poll() is not None

    def kill(self):
        """As a power cut to the process: kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def token(self, *more):
        """A token of a client with every scope, or of whom the arguments say."""
        whose = more or ("--tenant", TENANT, "--principal", "svc_tests", "--scopes", SCOPES)
        command = [GATEWAY, "token", "create", "--config", self.config, *whose]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def admin_token(self):
        return self.token("--admin", "--principal", "op_tests")
