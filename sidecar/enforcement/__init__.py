"""Policy enforcement point (PEP): the way of a call.

The order: `pipeline` is the enforcement point; `guarded` knows what each message of one call asks and which decision
(`cover`) covers it, `case` decides and records, `streaming` moves a stream's messages; `ordinary` is the straight way of a
call that is like one before, which `regulars` remembers; `caller` finds out who asks,
`circumstances` what they claim, `questions` puts both into a document; `forwarded` is what the service is told of them;
`refusals` is how a refusal looks; `parts` the ports; `call` the shapes between a door and all this.

For doors that only ask: `inquiry` is a call that goes another way, `permits` what it is told, `unreported` what is left of it
until it is reported; `together` several questions of one request, of which some are `alike`; `rehearsal` a search.

What is done to messages: `obligations` merges duties, `editor` carries them out, `release` counts what leaves,
`prepared` keeps what follows from a cached decision.

Edges, the only modules here that see grpc or generated code: `intercept` (the gRPC door; `listen`, `certificates`,
`sockets`, `peer`, `metadata`, `rich_status`, `transport` belong to it), `upstream` (`unary_call`), `reflection`, `recorder`
and `bodies` (decisions become records), `delivery`, `awaited`, `receipts` and `history` (records reach the store),
`periods` (pseudonym keys), `entries` (what the recorder is handed), `admin` (`sidecar status`).
"""
