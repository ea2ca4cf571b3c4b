"""Runs the parts that are named, or all, and says of each whether it holds."""

import shutil
import sys
import time
import traceback

import clients
import fuzz
import proxies
import streams
from place import WORK, Failed

PARTS = {"openapi": fuzz.main, "clients": clients.main, "sse": streams.main, "proxies": proxies.main}


def holds(name):
    began = time.monotonic()
    try:
        told = PARTS[name]()
    except Failed as failure:
        told = failure
    except Exception:
        told = traceback.format_exc()
    else:
        print(f"ok      {name} ({time.monotonic() - began:.0f} s): {told}", flush=True)
        return True
    print(f"failed  {name} ({time.monotonic() - began:.0f} s): {told}", flush=True)
    return False


def main(names):
    for unknown in set(names) - set(PARTS):
        raise SystemExit(f"there is no part {unknown}: {', '.join(PARTS)}")
    for left in WORK.glob("causeway-*"):
        shutil.rmtree(left)
    # All are run: one that fails says nothing of the others.
    failed = [name for name in names or PARTS if not holds(name)]
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
