"""What schemathesis is told of the gateway beyond its document, and two checks beside its own."""

import os

import schemathesis

from hub import Hub

STREAMS = {"streamFederatedRunEvents", "streamRunEvents"}
CANCELS = ["cancelFederatedRun", "cancelFederatedRunByVerb", "cancelRun", "cancelRunBySegment"]

# Runs that wait to be canceled, some for each operation that cancels: a run that is found by chance is finished.
WAITING = {name: os.environ["WAITING_RUNS"].split()[at :: len(CANCELS)] for at, name in enumerate(CANCELS)}

# Who signs the introductions: no schema can say what a signature is.
HUB = Hub(bytes.fromhex(os.environ["HUB_SEED"]))

# Why a well-formed request may be wrong all the same, which no schema of one request can say: another tenant's name, a
# cursor that was never given or two that differ, a key that meant something else, what the run's home cannot do ...
CODES = {"tenant_mismatch", "invalid_cursor", "idempotency_key_reused", "capability_unsupported"}
# ... two names of one thing that differ, or a duration above its maximum; and the rules between the members of a
# peer's entry.
FIELDS = {"agent_id", "idempotency_key", "overlap", "lifetime"}
ENTRIES = {"enrolPeer", "updatePeer"}


def operation_id(case):
    return case.operation.definition.raw["operationId"]


def is_good(case):
    """The document calls it so."""
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    """A text as it is; what is none has no lines."""
    return value.encode() if isinstance(value, str) else b""


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Keeps the examination going: no stream without an end, no end of the own credential, runs to cancel, signatures."""
    if operation_id(case) in STREAMS and (case.query or {}).get("follow", True) in (True, "true"):
        case.query = {**(case.query or {}), "follow": "false"}
    if operation_id(case) == "revokeToken" and case.path_parameters.get("token_id") == os.environ["TOKEN_ID"]:
        case.path_parameters = {"token_id": "aaaaaaaaaaaa"}
    if is_good(case) and WAITING.get(operation_id(case)):
        case.path_parameters = {"run_id": WAITING[operation_id(case)].pop()}
    if is_good(case) and operation_id(case) == "introducePeer":
        case.body = {**case.body, "introduction": HUB.introduction(os.environ["STACK"])}


@schemathesis.check
def refuses_for_few_reasons(ctx, response, case):
    """What the document calls a good request is refused with 400 and 422 only for what no schema says."""
    if not is_good(case) or response.status_code not in (400, 422) or operation_id(case) in ENTRIES:
        return
    error = response.json()["error"]
    if error["code"] not in CODES and error["details"].get("field") not in FIELDS:
        raise AssertionError(f"the document calls this request good: {error['message']}")


@schemathesis.check
def rejects_bad_entries(ctx, response, case):
    """A push is judged entry by entry: what the document calls a bad request is 200 only with an entry rejected."""
    is_bad = case.meta is not None and case.meta.generation.mode.is_negative
    if is_bad and operation_id(case) == "ingestFederatedEvents" and response.status_code == 200:
        if all(result["status"] != "rejected" for result in response.json()["results"]):
            raise AssertionError("the document calls every entry of this request good or the request bad")


@schemathesis.check
class EveryOperationSucceeds:
    """An operation that was only ever refused was not examined."""

    def __init__(self):
        self.tested, self.reached = set(), set()

    def after_response(self, ctx, response, case):
        self.tested.add(operation_id(case))
        if response.status_code < 300:
            self.reached.add(operation_id(case))

    def after_run(self, ctx):
        never = self.tested - self.reached
        if never:
            raise AssertionError(f"never succeeded: {' '.join(sorted(never))}")
