// JavaScript's SSE clients, each following a run to its end: `clients.mjs NAME URL [TOKEN]`.
//
// Every frame is printed as a line of JSON. What a library leaves to its user is done here as its user must: connect
// again with the last id, and stop at 204.

import { setTimeout as sleep } from "node:timers/promises";
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { EventSource as UndiciEventSource } from "undici";

const EVENTS = ["agentos.event", "caught_up", "gap", "end", "stream_error"];

function frame(event, id, data) {
  process.stdout.write(JSON.stringify({ event, id: event === "agentos.event" ? id : null, data }) + "\n");
}

/** An EventSource connects again by itself, and closes at 204. */
function untilClosed(source, heard = () => {}) {
  for (const name of EVENTS) {
    source.addEventListener(name, (sse) => {
      frame(name, sse.lastEventId, sse.data);
      heard(name, sse.lastEventId);
    });
  }
  return new Promise((resolve) => {
    source.addEventListener("error", () => source.readyState === source.CLOSED && resolve());
  });
}

const CLIENTS = {
  eventsource: (url, headers) =>
    untilClosed(
      new EventSource(url, {
        fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
      }),
    ),

  // It gives up at some cuts, so its user opens another one, with the cursor in the URL.
  undici: async (url) => {
    let cursor = 0;
    let ended = false;
    const heard = (name, id) => {
      if (name === "agentos.event") cursor = id;
      ended ||= name === "end";
    };
    for (; !ended; await sleep(200)) {
      await untilClosed(new UndiciEventSource(`${url}?from_sequence=${cursor}`), heard);
    }
  },

  "eventsource-client": (url, headers) =>
    new Promise((resolve) => {
      const source = createEventSource({
        url,
        headers,
        onMessage: ({ event, id, data }) => frame(event, id, data),
        onDisconnect: () => setImmediate(() => source.readyState === "closed" && resolve()),
      });
    }),

  "fetch-event-source": async (url, headers) => {
    // It is written for a page: a window with timers, and a document that can be hidden.
    globalThis.window = globalThis;
    globalThis.document = { addEventListener() {}, removeEventListener() {} };
    const over = new AbortController();
    await fetchEventSource(url, {
      headers,
      signal: over.signal,
      openWhenHidden: true,
      onopen: async ({ status }) => {
        if (status === 204) over.abort();
        else if (status !== 200) throw new Error(`status ${status}`);
      },
      onmessage: ({ event, id, data }) => frame(event, id, data),
      onclose: () => {
        throw new Error("closed: ask again");
      },
      onerror: () => 200,
    });
  },

  "eventsource-parser": async (url, headers) => {
    for (let cursor = {}; ; await sleep(200)) {
      try {
        const response = await fetch(url, { headers: { ...headers, ...cursor } });
        if (response.status === 204) return;
        if (response.status !== 200) process.exit(1);
        const frames = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
        for await (const { event, id, data } of frames) {
          frame(event, id, data);
          if (id) cursor = { "Last-Event-ID": id };
        }
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // fetch throws it for a connection that breaks
      }
    }
  },
};

setInterval(() => {}, 1000); // the timers of some do not keep the process
const [name, url, token] = process.argv.slice(2);
await CLIENTS[name](url, token ? { Authorization: `Bearer ${token}` } : {});
process.exit(0);
