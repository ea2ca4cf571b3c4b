"""The home of the runs: an orchestrator that keeps what it sends, so that a test knows what must arrive.

A run of the agent `agt_told` sends what the test lets it send, and ends with `finish`; a run of any other agent sends
three events and is completed after a while, if it is not canceled before.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOLD = "agt_told"
RUN_TIME = 1.0

# What JSON allows and readers of lines, floats or bytes get wrong.
PAYLOADS = [
    '{"text":"plain"}',
    '{"text":"Grüße 🚀 \\ud83d\\ude80 日本"}',
    '{"b":1,"a":2,"n":9007199254740993,"f":1.50,"e":1e2,"nil":null}',
    '{"text":"data: x\\nid: 9\\r\\n\\r\\nevent: end"}',
    '{"text":"line\u2028paragraph\u2029next\u0085end"}',
    '{"text":"\ufeffmark \\u0000 \\u001c tab\\t"}',
    '[]',
    '{"text":"' + "x" * 30000 + '"}',
]


class Run:
    """One run: the text of every event it sent, in order."""

    def __init__(self, number, tenant, agent):
        self.run_id = f"run_{number:06}"
        self.tenant, self.agent = tenant, agent
        self.events = []
        self.status = "running"
        self.moved = threading.Condition()

    @property
    def finished(self):
        return self.status != "running"

    def tell(self, count):
        """Sends so many events."""
        for _ in range(count):
            self._append("agentos.run.step.progress", PAYLOADS[len(self.events) % len(PAYLOADS)])

    def finish(self, status="completed"):
        """Sends the end."""
        self._append(f"agentos.run.{status}", '{"output":{"type":"text","text":"done"}}', status)

    def _append(self, kind, payload, status="running"):
        with self.moved:
            if self.finished:
                return
            sequence = len(self.events) + 1
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.events.append(
                f'{{"event_id":"evt_{self.run_id}_{sequence}","sequence":{sequence},"time":"{moment}","type":"{kind}",'
                f'"tenant_id":"{self.tenant}","agent_id":"{self.agent}","run_id":"{self.run_id}","payload":{payload}}}'
            )
            self.status = status
            self.moved.notify_all()

    def after(self, cursor, wait):
        """The events after this sequence, and whether the last is among them; waits for one."""
        with self.moved:
            self.moved.wait_for(lambda: len(self.events) > cursor or self.finished, wait)
            return self.events[cursor:], self.finished

    def shown(self):
        return {
            "tenant_id": self.tenant,
            "agent_id": self.agent,
            "run_id": self.run_id,
            "status": self.status,
            "created_at": "2026-01-05T10:00:00Z",
            "events_url": f"/v1/runs/{self.run_id}/events",
            "output": None,
            "error": None,
        }


class Server(ThreadingHTTPServer):
    """A gateway that is killed resets its connections, which is no error here."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Home:
    """The orchestrator, on a port of loopback."""

    def __init__(self):
        self.runs = {}
        self._keys = {}
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.home = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def create(self, tenant, agent, key):
        """The run of a key, and whether it is new."""
        with self._lock:
            if key is not None and (tenant, key) in self._keys:
                return self._keys[tenant, key], False
            run = Run(len(self.runs) + 1, tenant, agent)
            self.runs[run.run_id] = run
            if key is not None:
                self._keys[tenant, key] = run
        if agent != TOLD:
            run.tell(3)
            finish = threading.Timer(RUN_TIME, run.finish)
            finish.daemon = True
            finish.start()
        return run, True


class Handler(BaseHTTPRequestHandler):
    """The AgentOS orchestrator API."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/v1/agents/") and path.endswith("/runs"):
            agent = path.removeprefix("/v1/agents/").removesuffix("/runs")
            key = self.headers.get("Idempotency-Key") or json.loads(body).get("idempotency_key")
            run, new = self.server.home.create(self.headers.get("X-Tenant-Id", "tnt_demo"), agent, key)
            self.answer(201 if new else 200, {"run": run.shown(), "correlation_id": "req_home"})
        elif path.endswith(":cancel") and (run := self.run_at(path.removesuffix(":cancel"))):
            if run.finished:
                return self.refuse(409, "invalid_state_transition")
            run.finish("canceled")
            self.answer(200, {"run": run.shown(), "correlation_id": "req_home"})
        else:
            self.refuse(404, "not_found")

    def do_GET(self):
        target = urlsplit(self.path)
        path = unquote(target.path)
        if path == "/v1/health":
            self.answer(200, {"status": "ok"})
        elif path.endswith("/events") and (run := self.run_at(path.removesuffix("/events"))):
            asked = parse_qs(target.query)
            cursors = asked.get("after_sequence", []) + asked.get("from_sequence", [])
            self.stream(run, max(int(cursor) for cursor in [*cursors, self.headers.get("Last-Event-ID") or 0]))
        elif run := self.run_at(path):
            self.answer(200, {"run": run.shown(), "correlation_id": "req_home"})
        else:
            self.refuse(404, "not_found")

    def run_at(self, path):
        return self.server.home.runs.get(path.removeprefix("/v1/runs/"))

    def stream(self, run, cursor):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        finished = False
        try:
            while not finished:
                events, finished = run.after(cursor, wait=10)
                for event in events:
                    cursor += 1
                    self.wfile.write(f'id: {cursor}\nevent: agentos.event\ndata: {{"event":{event}}}\n\n'.encode())
                if not events:
                    self.wfile.write(b":hb\n")
        except OSError:
            pass  # the reader went away, and comes again

    def refuse(self, status, code):
        error = {"code": code, "message": code, "retryable": False}
        self.answer(status, {"error": error, "correlation_id": "req_home"})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
