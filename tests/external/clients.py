"""Clients generated from the live document, type-checked, and used for the whole main job."""

import shutil
import subprocess
import sys
from pathlib import Path

from place import WORK, Place, check

HERE = Path(__file__).parent / "generated"
BIN = Path(sys.executable).parent


def tell(command, **more):
    """Runs a tool; what it said is shown when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    check(done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def python(place):
    """openapi-python-client, which knows no NDJSON and must have nothing else to warn of; mypy, strictly."""
    directory = WORK / "python"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    shutil.copy(HERE / "main_job.py", directory)
    generate = [BIN / "openapi-python-client", "generate", "--url", f"{place.url}/openapi.json", "--meta", "none"]
    generate += ["--output-path", directory / "causeway_client", "--config", HERE / "config.yaml"]
    warnings = [line for line in tell(generate, cwd=directory).splitlines() if "WARNING" in line]
    check(warnings == ["WARNING parsing POST /v1/federation/events:ingest within events."], f"{warnings}")
    tell([BIN / "mypy", "--strict", "main_job.py"], cwd=directory)
    tell([sys.executable, "main_job.py", place.url, place.client], cwd=directory)


def typescript(place):
    """openapi-typescript with openapi-fetch; tsc, strictly."""
    directory = WORK / "typescript"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name in ("main_job.ts", "tsconfig.json"):
        shutil.copy(HERE / name, directory)
    shutil.copy(WORK / "package.json", directory)  # says that these are modules
    tools = WORK / "node_modules" / ".bin"
    tell([tools / "openapi-typescript", f"{place.url}/openapi.json", "--output", "causeway.ts"], cwd=directory)
    tell([tools / "tsc"], cwd=directory)
    tell(["node", "compiled/main_job.js", place.url, place.client], cwd=directory)


def main():
    for language in (python, typescript):
        with Place("prod") as place:
            language(place)
    return "in Python and TypeScript, type-checked, for the whole main job"
