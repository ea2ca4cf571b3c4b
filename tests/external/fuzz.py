"""schemathesis against the live document: every check, every operation, as client and as operator, prod and dev."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import api
from home import TOLD
from place import STACK, WORK, Place, check

HERE = Path(__file__).parent
OPERATORS = '/x-scope == "admin:*"'


def examine(profile, caller):
    """Examines all operations that a caller may call."""
    is_operator = caller == "operator"
    with Place(profile) as place:
        token = place.admin_token() if is_operator else place.token()
        token_id = token.split("_")[1]
        waiting = [] if is_operator else [api.forward(place, TOLD) for _ in range(20)]
        environment = {**os.environ, "PYTHONPATH": str(HERE), "TOKEN": token, "TOKEN_ID": token_id}
        environment |= {"WAITING_RUNS": " ".join(waiting), "STACK": STACK, "HUB_SEED": place.hub.seed.hex()}
        command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
        command += [f"{place.url}/openapi.json", "--include-by" if is_operator else "--exclude-by", OPERATORS]
        command += ["--no-color"]
        pipe = subprocess.PIPE
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment, cwd=WORK)
        check(done.returncode == 0, f"profile {profile}, {caller}:\n{done.stdout}")


def main():
    callers = [(profile, caller) for profile in ("prod", "dev") for caller in ("client", "operator")]
    with ThreadPoolExecutor(2) as pool:
        for examined in [pool.submit(examine, *one) for one in callers]:
            examined.result()
    return "no check failed: as client and as operator, profiles prod and dev"
