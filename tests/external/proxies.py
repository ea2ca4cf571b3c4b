"""nginx and haproxy before the gateway, as users set them up: the main job and an event stream through each.

Their configuration is the least that forwards requests. Every event must arrive; how soon a live one does is told.
"""

import contextlib
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import api
from home import TOLD
from place import WORK, Place, check, free_port, is_ready, until
from streams import check_truth, events

NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {gateway}; }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend all
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    server gateway {address}
"""


@contextlib.contextmanager
def proxy(name, place):
    """Runs one before the gateway; yields its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        config = Path(directory) / f"{name}.conf"
        address = place.url.removeprefix("http://")
        template = {"nginx": NGINX, "haproxy": HAPROXY}[name]
        config.write_text(template.format(directory=directory, port=port, gateway=place.url, address=address))
        command = {"nginx": ["nginx", "-c", config], "haproxy": ["haproxy", "-db", "-f", config]}[name]
        with open(config.with_suffix(".log"), "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until(f"{name} answers", lambda: is_ready(url) or process.poll() is not None)
            check(process.poll() is None, f"{name} did not start: {config.with_suffix('.log').read_text()}")
            yield url
        finally:
            process.terminate()
            process.wait()


def through(place, url):
    """Reads a told run's stream through a proxy as it grows; gives the delay of each live event, in seconds."""
    run_id = api.forward(place, TOLD, url)
    run = place.home.runs[run_id]
    arrived, frames = {}, []

    def read():
        for frame in api.frames(place, run_id, url):
            frames.append(frame)
            arrived[frame["id"]] = time.monotonic()

    reader = threading.Thread(target=read)
    reader.start()
    delays = []
    for sequence in range(1, 11):
        sent = time.monotonic()
        run.tell(1)
        until(f"event {sequence} comes through", lambda: str(sequence) in arrived, 60)
        delays.append(arrived[str(sequence)] - sent)
    run.finish()
    reader.join(60)
    check(not reader.is_alive(), "the stream did not end")
    check(frames[-1]["event"] == "end", f"the last frame is {frames[-1]['event']}")
    check_truth(run, events(frames))
    return delays


def main():
    told = []
    with Place("prod") as place:
        for name in ("nginx", "haproxy"):
            with proxy(name, place) as url:
                api.main_job(place, url)
                told.append(f"{name}: live events within {max(through(place, url)) * 1000:.0f} ms")
    return "; ".join(told)
