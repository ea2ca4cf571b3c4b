"""The few calls that the tests make of a gateway themselves, with nothing but the standard library."""

import json
import urllib.error
import urllib.request

from place import PEER, TENANT, check


def ask(place, method, path, body=None, url=None, headers=()):
    """An open answer of the gateway, or of a proxy before it at `url`."""
    sent = {"Content-Type": "application/json", **dict(headers)}
    if place.client:
        sent["Authorization"] = f"Bearer {place.client}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request((url or place.url) + path, data, sent, method=method)
    return urllib.request.urlopen(request, timeout=30)


def call(place, method, path, body=None, url=None, headers=()):
    """The answer's body, parsed; an error status raises."""
    with ask(place, method, path, body, url, {"Accept": "application/json", **dict(headers)}) as answer:
        return json.load(answer)


def forward(place, agent, url=None, headers=()):
    """Creates a run at the home; its id."""
    request = {"agent_id": agent, "input": {"type": "text", "text": "hello"}}
    body = {"forward": {"target_selector": {"stack_id": PEER}, "run_request": request}}
    return call(place, "POST", "/v1/federation/runs:forward", body, url, headers)["forwarded"]["run_id"]


def run(place, run_id, url=None):
    return call(place, "GET", f"/v1/federation/runs/{run_id}", url=url)["run"]


def events_path(run_id):
    return f"/v1/federation/runs/{run_id}/events"


def main_job(place, url):
    """What clients do all day, through a proxy: forward once, get, list, cancel, push, hear an error."""
    key = {"Idempotency-Key": f'"{url}"'}
    run_id = forward(place, "agt_echo", url, key)
    check(forward(place, "agt_echo", url, key) == run_id, "one key made two runs")
    check(run(place, run_id, url)["home"] == PEER, "the run is not at its home")
    listed = call(place, "GET", "/v1/federation/runs", url=url)["items"]
    check(run_id in [one["run_id"] for one in listed], "the run is not listed")
    canceled = call(place, "POST", f"/v1/federation/runs/{run_id}/cancel", url=url)["run"]
    check(canceled["status"] == "canceled", f"the run is {canceled['status']}")
    event = {"event_id": f"e-{url}", "type": "note", "run_id": "run_pushed", "tenant_id": TENANT}
    pushed = call(place, "POST", "/v1/federation/events:ingest", {"events": [event]}, url)
    check(pushed["accepted"] == 1, f"the push was answered {pushed}")
    try:
        run(place, "run_unknown", url)
    except urllib.error.HTTPError as refused:
        code = json.load(refused)["error"]["code"]
        check((refused.status, code) == (404, "not_found"), f"an unknown run is {refused.status} {code}")
    else:
        check(False, "an unknown run was shown")


def stream_ticket(place, run_id, cursor):
    """A URL that opens the run's stream once."""
    body = {"run_id": run_id, "from_sequence": cursor}
    answer = call(place, "POST", "/v1/federation/stream-tickets", body)
    return place.url + answer["stream_ticket"]["events_url"]


def frames(place, run_id, url=None):
    """Every frame of a run's stream to its end, read as plainly as can be."""
    with ask(place, "GET", events_path(run_id), url=url) as answer:
        fields = {}
        for line in (line.decode().removesuffix("\n") for line in answer):
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                check(name not in fields, f"two lines of {name} in a frame")
                fields[name] = value
            elif not line:
                yield {"event": fields["event"], "id": fields.get("id"), "data": fields["data"]}
                fields = {}
        check(not fields, "the stream ended inside a frame")
