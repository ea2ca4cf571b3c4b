"""Python's SSE clients, each following a run to its end: `clients.py NAME URL [TOKEN]`.

Every frame is printed as a line of JSON. What a library leaves to its user is done here as its user must: connect again
with the last id, and stop at 204.
"""

import asyncio
import json
import sys
import time

import aiohttp
import httpx
import httpx_sse
import requests
import requests_sse
import sseclient
from aiohttp_sse_client2 import client as aiohttp_sse


class Ended(Exception):
    """The gateway answered 204: nothing will come."""


def frame(event, ident, data):
    print(json.dumps({"event": event, "id": ident or None, "data": data}), flush=True)


def expect_stream(status):
    if status == 204:
        raise Ended
    if status != 200:
        raise SystemExit(f"status {status}")


def with_cursor(headers, last_id):
    return {**headers, "Last-Event-ID": last_id} if last_id else dict(headers)


def over_cuts(follow, broken):
    """Follows with the last id, again and again, until there is no more."""
    last_id = None
    while True:
        try:
            for event, ident, data in follow(last_id):
                frame(event, ident, data)
                last_id = ident or last_id
        except Ended:
            return
        except broken:
            pass
        time.sleep(0.2)


def follow_httpx_sse(url, headers):
    def follow(last_id):
        with httpx.Client(timeout=30, trust_env=False) as client:
            with httpx_sse.connect_sse(client, "GET", url, headers=with_cursor(headers, last_id)) as source:
                expect_stream(source.response.status_code)
                for sse in source.iter_sse():
                    yield sse.event, sse.id if sse.event == "agentos.event" else None, sse.data

    over_cuts(follow, httpx.TransportError)


def follow_sseclient(url, headers):
    def follow(last_id):
        with requests.get(url, headers=with_cursor(headers, last_id), stream=True, timeout=30) as response:
            expect_stream(response.status_code)
            for sse in sseclient.SSEClient(response).events():
                yield sse.event, sse.id, sse.data

    over_cuts(follow, requests.RequestException)


def follow_requests_sse(url, headers):
    try:
        with requests_sse.EventSource(url, headers=headers, timeout=30) as source:
            for sse in source:
                frame(sse.type, sse.last_event_id if sse.type == "agentos.event" else None, sse.data)
    except requests_sse.InvalidStatusCodeError as error:
        if error.status_code != 204:
            raise


def follow_aiohttp_sse_client2(url, headers):
    async def follow():
        last_id = None
        while True:
            try:
                async with aiohttp_sse.EventSource(url, headers=with_cursor(headers, last_id)) as source:
                    async for sse in source:
                        ident = sse.last_event_id if sse.type == "agentos.event" else None
                        frame(sse.type, ident, sse.data)
                        last_id = ident or last_id
            except ConnectionAbortedError as refused:
                if "status: 204" in str(refused):
                    return
                raise
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)

    asyncio.run(follow())


CLIENTS = {
    "httpx-sse": follow_httpx_sse,
    "sseclient-py": follow_sseclient,
    "requests-sse": follow_requests_sse,
    "aiohttp-sse-client2": follow_aiohttp_sse_client2,
}

if __name__ == "__main__":
    name, url, *token = sys.argv[1:]
    CLIENTS[name](url, {"Authorization": f"Bearer {token[0]}"} if token else {})
