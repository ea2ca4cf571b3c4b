"""The main job by a client that openapi-python-client made of the document: `main_job.py URL TOKEN`."""

import sys

from causeway_client import AuthenticatedClient
from causeway_client.api.events import ingest_federated_events, stream_federated_run_events
from causeway_client.api.forwarding import forward_run, get_forward
from causeway_client.api.peer import get_peer_capabilities, list_peers
from causeway_client.api.runs import cancel_federated_run, get_federated_run, list_federated_runs
from causeway_client.models import (
    ErrorCode,
    Event,
    EventPage,
    FederatedRunList,
    FederatedRunResponse,
    FederatedRunStatus,
    FederationEventIngestRequest,
    FederationEventIngestResponse,
    FederationForwardRunRequest,
    FederationForwardRunResponse,
    ForwardPayload,
    ForwardResponse,
    ForwardState,
    PeerCapabilitiesResponse,
    PeerList,
    Problem,
    RunForwardRequest,
    TargetSelector,
)
from causeway_client.types import UNSET, Unset

TENANT = "tnt_demo"


def forward(client: AuthenticatedClient, stack_id: str, key: str) -> FederationForwardRunResponse | Problem:
    body = FederationForwardRunRequest(
        forward=ForwardPayload(
            target_selector=TargetSelector(stack_id=stack_id),
            run_request=RunForwardRequest(agent_id="agt_echo", input_={"type": "text", "text": "hello"}),
        )
    )
    answer = forward_run.sync(client=client, body=body, idempotency_key=key)
    assert isinstance(answer, FederationForwardRunResponse | Problem), answer
    return answer


def forwards_once(client: AuthenticatedClient) -> str:
    first, again = forward(client, "stk_home", "py-1"), forward(client, "stk_home", "py-1")
    assert isinstance(first, FederationForwardRunResponse) and isinstance(again, FederationForwardRunResponse)
    assert first.forwarded.run_id == again.forwarded.run_id, "one key made two runs"
    settled = get_forward.sync(first.forwarded.forward_id, client=client)
    assert isinstance(settled, ForwardResponse) and settled.forward.state == ForwardState.FORWARDED, settled
    return first.forwarded.run_id


def follows(client: AuthenticatedClient, run_id: str) -> None:
    """By pages: a generated client reads whole bodies."""
    cursor, sequences = 0, list[int | None]()
    while True:
        page = stream_federated_run_events.sync(run_id, client=client, from_sequence=cursor, limit=2)
        assert isinstance(page, EventPage), page
        sequences += [one.event.sequence for one in page.events if isinstance(one.event.sequence, int)]
        cursor = page.next_from_sequence
        if not page.has_more and page.run.status == FederatedRunStatus.COMPLETED:
            break
    assert sequences == [1, 2, 3, 4], sequences


def lists_and_gets(client: AuthenticatedClient, run_id: str) -> None:
    found = list[str]()
    cursor: str | Unset = UNSET
    while True:
        page = list_federated_runs.sync(client=client, limit=1, cursor=cursor)
        assert isinstance(page, FederatedRunList), page
        found += [run.run_id for run in page.items]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert run_id in found and len(found) == len(set(found)), found
    got = get_federated_run.sync(run_id, client=client)
    assert isinstance(got, FederatedRunResponse) and got.run.home == "stk_home", got


def cancels(client: AuthenticatedClient) -> None:
    created = forward(client, "stk_home", "py-2")
    assert isinstance(created, FederationForwardRunResponse), created
    canceled = cancel_federated_run.sync(created.forwarded.run_id, client=client)
    assert isinstance(canceled, FederatedRunResponse), canceled
    assert canceled.run.status == FederatedRunStatus.CANCELED, canceled
    once_more = cancel_federated_run.sync(created.forwarded.run_id, client=client)
    assert isinstance(once_more, Problem), once_more
    assert once_more.error.code == ErrorCode.INVALID_STATE_TRANSITION and not once_more.error.retryable, once_more


def ingests(client: AuthenticatedClient) -> None:
    event = Event(event_id="py-e1", type_="note", run_id="run_pushed_py", tenant_id=TENANT, payload={"n": 2**53 + 1})
    body = FederationEventIngestRequest(events=[event])
    stored = ingest_federated_events.sync(client=client, body=body)
    assert isinstance(stored, FederationEventIngestResponse) and stored.results[0].sequence == 1, stored
    again = ingest_federated_events.sync(client=client, body=body)
    assert isinstance(again, FederationEventIngestResponse) and (again.accepted, again.duplicates) == (1, 1), again
    page = stream_federated_run_events.sync("run_pushed_py", client=client)
    assert isinstance(page, EventPage) and page.events[0].event.payload == {"n": 2**53 + 1}, page


def sees_peers(client: AuthenticatedClient) -> None:
    peers = list_peers.sync(client=client)
    assert isinstance(peers, PeerList) and [peer.peer_id for peer in peers.items] == ["stk_home"], peers
    able = get_peer_capabilities.sync(client=client)
    assert isinstance(able, PeerCapabilitiesResponse) and able.capabilities.supports.runs_forward, able


def understands_errors(url: str, client: AuthenticatedClient) -> None:
    nowhere = forward(client, "stk_nowhere", "py-3")
    assert isinstance(nowhere, Problem) and nowhere.error.code == ErrorCode.PEER_NOT_FOUND, nowhere
    unknown = get_federated_run.sync("run_unknown", client=client)
    assert isinstance(unknown, Problem) and unknown.status == 404 and unknown.correlation_id, unknown
    stranger = AuthenticatedClient(base_url=url, token="no token")
    refused = list_federated_runs.sync(client=stranger)
    assert isinstance(refused, Problem) and refused.error.code == ErrorCode.UNAUTHORIZED, refused


def main(url: str, token: str) -> None:
    # Whoever reads whole bodies asks for JSON: by default a run's events are a stream.
    client = AuthenticatedClient(base_url=url, token=token, headers={"Accept": "application/json"})
    run_id = forwards_once(client)
    follows(client, run_id)
    lists_and_gets(client, run_id)
    cancels(client)
    ingests(client)
    sees_peers(client)
    understands_errors(url, client)


if __name__ == "__main__":
    main(*sys.argv[1:])
