"""Real SSE clients follow a run over a gateway that is killed and started again.

Each must have received what the run's home sent: the same ids, order and bytes, nothing twice, and then it must stop.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import api
from home import TOLD
from place import WORK, Failed, Place, check, until

HERE = Path(__file__).parent / "streams"
PYTHON = ["httpx-sse", "sseclient-py", "requests-sse", "aiohttp-sse-client2"]
NODE = ["eventsource", "eventsource-client", "fetch-event-source", "eventsource-parser"]
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0"
).split()


class Follower:
    """A client at work in a process: the frames it was given so far."""

    def __init__(self, name, command):
        self.name, self.frames = name, []
        self.errors = tempfile.TemporaryFile("w+", dir=WORK)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=WORK)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.frames.append(json.loads(line))

    def has(self, count):
        self._check_health()
        return len(events(self.frames)) >= count

    def is_over(self):
        self._check_health()
        return self.process.poll() == 0 and not self.reader.is_alive()

    def _check_health(self):
        if self.process.poll() not in (None, 0):
            self.errors.seek(0)
            raise Failed(f"{self.name} gave up: {self.errors.read()[-2000:]}")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Page:
    """Chromium with a page that follows: its server hears of each frame."""

    def __init__(self, name, server, query=""):
        self.name, self.frames, self.closed = name, server.frames, server.closed
        self.profile = tempfile.mkdtemp(prefix="chromium-", dir=WORK)
        command = [*CHROMIUM, f"--user-data-dir={self.profile}", f"{server.url}/{query}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def has(self, count):
        check(self.process.poll() is None, "chromium ended")
        return len(events(self.frames)) >= count

    def is_over(self):
        return self.closed.is_set()

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class PageServer(ThreadingHTTPServer):
    """Serves the page, tells it where its stream is, and takes what it was given."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.frames, self.closed = [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.stream_url = None  # given the cursor, the URL of the stream
        threading.Thread(target=self.serve_forever, daemon=True).start()


class PageHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        target = urlsplit(self.path)
        if target.path == "/stream-url":
            try:
                self.answer(200, self.server.stream_url(int(parse_qs(target.query)["from_sequence"][0])).encode())
            except OSError:  # the gateway is down
                self.answer(503, b"")
        elif target.path == "/":
            self.answer(200, (HERE / "page.html").read_bytes())
        else:
            self.answer(404, b"")

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if told.get("closed"):
            self.server.closed.set()
        else:
            self.server.frames.append(told)
        self.answer(204, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def events(frames):
    return [frame for frame in frames if frame["event"] == "agentos.event"]


def parsed(text):
    """JSON with every number as it was written, and every member in its place."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)


def check_truth(run, given):
    """What the gateway holds is what the home sent: the same text, but for three characters that it escapes."""
    check(len(given) == len(run.events), f"{len(given)} events of {len(run.events)}")
    for sequence, (sent, frame) in enumerate(zip(run.events, given), 1):
        for character in "\u2028\u2029\u0085":
            sent = sent.replace(character, f"\\u{ord(character):04x}")
        check(frame["id"] == str(sequence), f"id {frame['id']} at {sequence}")
        check(frame["data"].startswith(f'{{"event":{sent},"federation":'), f"event {sequence} differs: {frame['data'][:300]}")


def check_received(follower, run, reference):
    """The same ids, order and text as a plain reader gets; one end, after everything; no gap, no error."""
    name, given = follower.name, events(follower.frames)
    check(
        [(frame["id"], parsed(frame["data"])) for frame in given]
        == [(frame["id"], parsed(frame["data"])) for frame in reference],
        f"{name} was given {[frame['id'] for frame in given]} of {len(reference)} events",
    )
    check(given == reference, f"{name} was given other bytes")
    others = [frame["event"] for frame in follower.frames if frame["event"] not in ("agentos.event", "caught_up")]
    check(others == ["end"], f"{name}: {others}")
    check(follower.frames[-1]["event"] == "end", f"{name} was given something after the end")
    end = json.loads(follower.frames[-1]["data"])
    check(end == {"sequence": len(run.events), "status": "completed"}, f"{name} ended with {end}")


def commands(url, token):
    for names, program in ((PYTHON, [sys.executable, HERE / "clients.py"]), (NODE, ["node", WORK / "clients.mjs"])):
        for name in names:
            yield name, [*program, name, url, token]


def follow_over_restarts(place, make_followers):
    """The run's history is read, then its live events, with a kill in each; then it ends."""
    run_id = api.forward(place, TOLD)
    run = place.home.runs[run_id]
    run.tell(20)
    until("the gateway holds the first events", lambda: api.run(place, run_id)["high_water"] == 20)
    followers = list(make_followers(place, run_id))
    try:
        for told in (1, 20):
            run.tell(told)
            for follower in followers:
                until(f"{follower.name} has {len(run.events)} events", lambda: follower.has(len(run.events)), 90)
            place.kill()
            run.tell(10)  # which nobody can read yet
            place.start()
            run.tell(10)
        for follower in followers:
            until(f"{follower.name} has {len(run.events)} events", lambda: follower.has(len(run.events)), 90)
        run.finish()
        reference = events(api.frames(place, run_id))
        check_truth(run, reference)
        for follower in followers:
            until(f"{follower.name} stops after the end", follower.is_over, 90)
            check_received(follower, run, reference)
    finally:
        for follower in followers:
            follower.stop()


def with_tokens():
    """Clients that send a token, and a page with stream tickets, at a gateway of profile prod."""
    server = PageServer()

    def followers(place, run_id):
        for name, command in commands(place.url + api.events_path(run_id), place.client):
            yield Follower(name, command)
        server.stream_url = lambda cursor: api.stream_ticket(place, run_id, cursor)
        yield Page("Chromium with tickets", server, "?tickets")

    with Place("prod", server=f'cors_origins = ["{server.url}"]') as place:
        follow_over_restarts(place, followers)


def without_tokens():
    """Those that can send no header, at a gateway of profile dev."""
    server = PageServer()

    def followers(place, run_id):
        url = place.url + api.events_path(run_id)
        yield Follower("undici", ["node", WORK / "clients.mjs", "undici", url])
        server.stream_url = lambda cursor: url
        yield Page("Chromium", server)

    with Place("dev", server=f'cors_origins = ["{server.url}"]') as place:
        follow_over_restarts(place, followers)


def main():
    shutil.copy(HERE / "clients.mjs", WORK / "clients.mjs")  # beside node_modules
    with_tokens()
    without_tokens()
    return f"{len(PYTHON)} clients in Python, {len(NODE) + 1} in JavaScript, Chromium with and without tickets"
