// The main job by a client that openapi-typescript made of the document, with openapi-fetch: `main_job.js URL TOKEN`.

import assert from "node:assert/strict";
import { EventSourceParserStream } from "eventsource-parser/stream";
import createClient from "openapi-fetch";
import type { components, paths } from "./causeway.js";

type Client = ReturnType<typeof createClient<paths>>;
type Envelope = components["schemas"]["EventEnvelope"];
type Page = components["schemas"]["EventPage"];
type End = components["schemas"]["StreamEnd"];

const TENANT = "tnt_demo";

function forward(client: Client, stack_id: string, key: string) {
  return client.POST("/v1/federation/runs:forward", {
    params: { header: { "Idempotency-Key": key } },
    body: {
      forward: {
        target_selector: { stack_id },
        run_request: { agent_id: "agt_echo", input: { type: "text", text: "hello" } },
      },
    },
  });
}

/** The run of a forward that succeeded now; the document knows a 202 too, for who asks for it. */
async function forwarded(client: Client, key: string) {
  const { data, response } = await forward(client, "stk_home", key);
  assert(data && "forwarded" in data, `status ${response.status}`);
  return data.forwarded;
}

async function forwardsOnce(client: Client): Promise<string> {
  const [first, again] = [await forwarded(client, "ts-1"), await forwarded(client, "ts-1")];
  assert.equal(first.run_id, again.run_id, "one key made two runs");
  const { data } = await client.GET("/v1/federation/forwards/{forward_id}", {
    params: { path: { forward_id: first.forward_id } },
  });
  assert.equal(data?.forward.state, "forwarded");
  return first.run_id;
}

async function follows(client: Client, run_id: string): Promise<void> {
  const { data } = await client.GET("/v1/federation/runs/{run_id}/events", {
    params: { path: { run_id }, query: { from_sequence: 0 } },
    headers: { Accept: "text/event-stream" },
    parseAs: "stream",
  });
  assert(data);
  const sequences: unknown[] = [];
  let end: End | undefined;
  const frames = data.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const frame of frames) {
    if (frame.event === "agentos.event") {
      const { event }: Envelope = JSON.parse(frame.data);
      assert.equal(String(event.sequence), frame.id);
      sequences.push(event.sequence);
    } else if (frame.event === "end") {
      end = JSON.parse(frame.data);
    }
  }
  assert.deepEqual(sequences, [1, 2, 3, 4]);
  assert.deepEqual(end, { sequence: 4, status: "completed" });
}

async function listsAndGets(client: Client, run_id: string): Promise<void> {
  const found: string[] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const query = cursor === undefined ? { limit: 1 } : { limit: 1, cursor };
    const { data } = await client.GET("/v1/federation/runs", { params: { query } });
    assert(data);
    found.push(...data.items.map((run) => run.run_id));
    cursor = data.next_cursor;
  }
  assert(found.includes(run_id) && new Set(found).size === found.length, found.join());
  const { data } = await client.GET("/v1/federation/runs/{run_id}", { params: { path: { run_id } } });
  assert.equal(data?.run.home, "stk_home");
}

async function cancels(client: Client): Promise<void> {
  const { run_id } = await forwarded(client, "ts-2");
  const cancel = () => client.POST("/v1/federation/runs/{run_id}/cancel", { params: { path: { run_id } } });
  assert.equal((await cancel()).data?.run.status, "canceled");
  const { error } = await cancel();
  assert.equal(error?.error.code, "invalid_state_transition");
  assert.equal(error?.error.retryable, false);
}

async function ingests(client: Client): Promise<void> {
  const event = { event_id: "ts-e1", type: "note", run_id: "run_pushed_ts", tenant_id: TENANT, payload: { text: "🚀" } };
  const push = () => client.POST("/v1/federation/events:ingest", { body: { events: [event] } });
  assert.equal((await push()).data?.results[0]?.sequence, 1);
  assert.equal((await push()).data?.duplicates, 1);
  const { data } = await client.GET("/v1/federation/runs/{run_id}/events", {
    params: { path: { run_id: "run_pushed_ts" } },
    headers: { Accept: "application/json" },
  });
  const page = data as Page; // which form an answer has is said by `Accept`, which no type knows
  assert.deepEqual(page.events[0]?.event.payload, event.payload);
}

async function seesPeers(client: Client): Promise<void> {
  const { data: peers } = await client.GET("/v1/federation/peers");
  assert.deepEqual(peers?.items.map((peer) => peer.peer_id), ["stk_home"]);
  const { data: able } = await client.GET("/v1/federation/peer/capabilities");
  assert.equal(able?.capabilities.supports.runs_forward, true);
}

async function understandsErrors(baseUrl: string, client: Client): Promise<void> {
  const nowhere = await forward(client, "stk_nowhere", "ts-3");
  assert.equal(nowhere.error?.error.code, "peer_not_found");
  const unknown = await client.GET("/v1/federation/runs/{run_id}", { params: { path: { run_id: "run_unknown" } } });
  assert.equal(unknown.error?.status, 404);
  assert(unknown.error.correlation_id);
  const refused = await createClient<paths>({ baseUrl }).GET("/v1/federation/runs");
  assert.equal(refused.error?.error.code, "unauthorized");
}

const [url = "", token] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const run = await forwardsOnce(client);
await follows(client, run);
await listsAndGets(client, run);
await cancels(client);
await ingests(client);
await seesPeers(client);
await understandsErrors(url, client);
