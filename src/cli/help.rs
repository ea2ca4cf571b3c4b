//! What `--help` says after the options: examples first, then what is good to know, then exit codes.

/// What Causeway is.
pub(super) const ABOUT: &str = "\
Causeway is a federation gateway: create a run at a peer through your own gateway, once
and only once, and follow its events through it, in order, without a silent hole.";

/// Where to begin.
pub(super) const START: &str = "\
New here? Try:
  causeway demo          two gateways and a run between them, on this machine
  causeway config show   every key and its value; config/causeway.toml explains them
  causeway serve --config causeway.toml
  causeway token create --tenant acme --principal alice --scopes runs:forward,events:read

Exit codes:
  0 done   1 failed   2 usage   64 configuration   69 gateway not reachable
  75 try again later";

/// Of `causeway serve`.
pub(super) const SERVE: &str = "\
Examples:
  causeway serve                 environment alone: 127.0.0.1:8080, data in ./data
  causeway serve --config config/causeway.toml
  CAUSEWAY_LISTEN=127.0.0.1:9000 AGENTOS_DEFAULT_TENANT=tnt_demo causeway serve

Every key of the configuration is a variable too: forward.max_attempts is
CAUSEWAY_FORWARD_MAX_ATTEMPTS. The first SIGTERM or Ctrl-C drains: /readyz says no,
new work is refused, event streams end at a frame. The second one does not wait.

Exit codes:
  0 drained   1 cannot start, or the disk failed   64 configuration (all mistakes)";

/// Of `causeway config`.
pub(super) const CONFIG: &str = "\
Examples:
  causeway config check --config causeway.toml    64 and every mistake, or 0
  causeway config check --live                    also asks every peer, as the gateway does
  causeway config show                            what holds without a file
  causeway config show --config left.toml --json | jq .forward";

/// Of `causeway healthcheck`.
pub(super) const HEALTH: &str = "\
Examples:
  causeway healthcheck                            where the configuration listens
  causeway healthcheck --url http://127.0.0.1:8080
  HEALTHCHECK CMD [\"causeway\", \"healthcheck\"]    in a Dockerfile

Exit codes:
  0 ready   1 not ready, not reachable, or no answer within 2 s";

/// Of `causeway openapi`.
pub(super) const OPENAPI: &str = "\
Examples:
  causeway openapi > causeway.v1.yaml
  causeway openapi --format json | jq '.paths | keys'";

/// Of `causeway backup`.
pub(super) const BACKUP: &str = "\
Examples:
  causeway backup /backups/causeway-$(date +%F).db --config causeway.toml
  causeway backup copy.db --data-dir data --json

The copy is one file, checked, and gets its name last; a gateway may run meanwhile.
It holds all the gateway knows, its secret too: keep it as safe as the data directory.";

/// Of `causeway restore`.
pub(super) const RESTORE: &str = "\
Examples:
  causeway restore /backups/causeway-2026-01-05.db --data-dir data

Stop the gateway and move the old data directory away first: nothing is overwritten.
List cursors given out before are refused afterwards: what they point at may be lost.";

/// Of `causeway tail`.
pub(super) const TAIL: &str = "\
Examples:
  causeway tail run_01JH9YZZ                 all so far, then live, until the run ends
  causeway tail run_01JH9YZZ --from 12       only what comes after sequence 12
  causeway tail run_01JH9YZZ --no-follow --json | jq .event.type

A cut connection is taken up again where it broke, with growing pauses.
Where the gateway asks who you are: --token-file FILE, or CAUSEWAY_TOKEN.

Exit codes:
  0 the run completed   1 it failed, was canceled or lost
  69 the gateway could not be reached at first   75 try again later";

/// Of `causeway forward`.
pub(super) const FORWARD: &str = "\
Examples:
  causeway forward --to stk_b --agent agt_echo --text 'hello' --follow
  causeway forward --region us-west-2 --require tool_hosting --agent agt_sql \\
      --input '{\"query\":\"select 1\"}'
  causeway forward --to stk_b --agent agt_echo --input-file - --key order-4711 < in.json

The key makes it one run: a request that was interrupted, or not answered, is sent
again with the same key, a few times. If the command gives up all the same, run it
again with the --key it names.

Exit codes:
  0 the run exists (with --async: will be created; with --follow: completed)
  1 refused   69 gateway not reachable   75 try again later, with the same key";

/// Of `causeway demo`.
pub(super) const DEMO: &str = "\
Examples:
  causeway demo                              then stays up, with curl lines to try
  causeway demo --once                       0 if all went as promised
  causeway demo --input my-run.json          {\"agent_id\":\"agt_a\",\"input\":{\"text\":\"hi\"}}
  CAUSEWAY_LOG=info causeway demo --once     with the gateways' log";

/// Of `causeway orchestrator`.
pub(super) const BENCH: &str = "\
Examples:
  causeway bench ingest                          starts a gateway, measures, removes it
  causeway bench ingest --writers 16 --batch 100 --json > before.json
  causeway bench ingest --writers 16 --batch 100 --compare before.json

What is measured is verified: an event that is lost, repeated, out of order or changed
fails the run, and there is no figure.

Exit codes:
  0 measured and verified   1 broken promise, or cannot be set up   69 not reachable";

pub(super) const ORCHESTRATOR: &str = "\
Examples:
  causeway orchestrator                      where config/pair/right.toml looks for it
  causeway orchestrator --listen 127.0.0.1:0 --run-time 1m

It listens on loopback only and keeps everything in memory. Its runs count the words
of their input: they are there to be forwarded and followed.";

/// Of `causeway token`.
pub(super) const TOKEN: &str = "\
Examples:
  TOKEN=$(causeway token create --tenant acme --principal ci --scopes runs:forward,events:read)
  causeway token create --tenant acme --principal bob --scopes runs:read --lifetime 90d
  causeway token create --admin --principal alice > alice.token
  causeway token list
  causeway token revoke 7q2m4k

A token is shown once, by `create`; the gateway keeps only a hash of it. It is sent as
`Authorization: Bearer …`, and a revoked one is refused at once. The commands use the
gateway's control socket in its data directory, or work on the directory while no gateway
runs; --url and --token-file use a gateway elsewhere.

Exit codes:
  0 done   1 refused   2 usage   64 configuration   69 gateway not reachable   75 try again later";

/// Of `causeway peer`.
pub(super) const PEER: &str = "\
Examples:
  causeway peer add stk_b --url https://gw.b.example:8443 --kind gateway \\
      --public-key ed25519:MCow… --operations forward_out,forward_in --tenants acme
  causeway peer update stk_b --tenants acme,beta      the given keys only
  causeway peer list
  causeway peer verify stk_b                          0 only if both know each other
  causeway peer revoke stk_b --reason 'laptop lost'   at once, open streams included

What `add` takes is what `causeway key show` prints at the other side. Each side enrols
the other: one that does not is told so by `verify`. Peers of the configuration file are
changed there; they can be revoked, drained and reinstated here.

Exit codes:
  0 done   1 refused, or not healthy   2 usage   64 configuration
  69 gateway not reachable   75 try again later";

/// Of `causeway key`.
pub(super) const KEY: &str = "\
Examples:
  causeway key show                 what a peer's operator needs to enrol this gateway
  causeway key show --bare          the public key alone
  causeway key rotate               announces a new key; it takes over after the overlap
  causeway key rotate --overlap 1h
  causeway key rotate --cancel      takes the announcement back

Peers that ask this gateway how it is learn the announced key by themselves, because the
present one signs it. A peer that is away for the whole overlap must be told the new one.

Exit codes:
  0 done   1 refused   64 configuration   69 gateway not reachable   75 try again later";

/// Of `causeway audit`.
pub(super) const AUDIT: &str = "\
Examples:
  causeway audit list --subject operator:alice
  causeway audit list --action peer.revoke --json | jq .items
  causeway audit verify --data-dir data
  causeway audit verify --sink /var/log/causeway/audit.jsonl

Each record carries a hash of itself and all before it, and checkpoints are signed with
the gateway's key. Compare with a copy (audit.sink = \"file:…\") that is kept elsewhere:
who can change the database cannot also change that.

Exit codes:
  0 whole   1 a finding: the sentence says what and where   2 usage   64 configuration";

/// Of `causeway gateway`.
pub(super) const GATEWAY: &str = "\
Examples:
  causeway gateway drain       before maintenance: new runs go elsewhere
  causeway gateway resume

Draining lasts until `resume`, or until the gateway is restarted.

Exit codes:
  0 done   1 refused   64 configuration   69 no gateway runs, or it is not reachable";

/// Of `causeway alerts`.
pub(super) const ALERTS: &str = "\
Examples:
  causeway alerts
  causeway alerts --json | jq '.items[] | select(.severity == \"critical\")'
  causeway alerts --url https://gw.example --token-file ops.token

Conditions that hold now, each with what to do. What begins and what ends is in the log,
and is posted to alerts.webhook_urls.

Exit codes:
  0 nothing critical   1 something is   64 configuration   69 no gateway runs, or it is not reachable";

/// Of `causeway links`.
pub(super) const LINKS: &str = "\
Examples:
  causeway links
  causeway links --json | jq '.items[] | {peer_id, state, certificate_expires_at}'

MS is how long the last answered health call took; FAILING are runs whose events cannot
be read at the peer now.

Exit codes:
  0 done   1 refused   64 configuration   69 no gateway runs, or it is not reachable";

/// Of `causeway topology`.
pub(super) const TOPOLOGY: &str = "\
Examples:
  causeway topology
  causeway topology --json | jq .topology.edges

A line for each way that work may go. PROOFS say how the caller shows who it is; an
operation that is granted and refused all the same has the rule behind it.

Exit codes:
  0 done   1 refused   64 configuration   69 no gateway runs, or it is not reachable";

/// Of `causeway deliveries`.
pub(super) const DELIVERIES: &str = "\
Examples:
  causeway deliveries
  causeway deliveries --peer stk_b --state unknown
  causeway deliveries --state expired --limit 1000 --json | jq '.items[].last_error'

Forwards of all tenants, the newest first, without their content. `expired` with the
outcome `unknown` may have a run at the peer that nobody follows.

Exit codes:
  0 done   1 refused   2 usage   64 configuration   69 no gateway runs, or it is not reachable";
