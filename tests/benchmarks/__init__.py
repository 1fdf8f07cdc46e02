"""Speed and memory, measured side by side: `python -m tests.benchmarks [--short] [--only NAME] [--json FILE]`.

==============  =====================================================================================================
module          what it does
==============  =====================================================================================================
`scale`         how much is measured: short, full, long
`rows`          the figures and their targets; the table, the JSON, the table in docs/measurements.md
`machine`       cores, resident memory, and what the figures were measured on
`load`          load over gRPC on a socket: `h2load`, or a generator of our own where that is missing (`generator`)
`h2load`        the program: load on any URL
`peers`         what the sidecar is compared with: a bare echo, a plain proxy, our door with nothing behind it
`rivals`        other people's servers beside ours, in turns; that answers are answers, by each server's own counters
`envoys`        Envoys under test: alone, or asking an ext_authz service; without TLS or with mutual TLS
`rivals_opa`    Envoy + OPA: its plugin where there is one, its engine in `opa_authz`, and by way of the plain proxy
`deployment`    a store, an upstream and sidecars, each a process of its own
`calls`         guarded calls against the peers; `committed` against `written`
`hosted`        the same inside Envoy, beside Envoy alone and Envoy + OPA (`hosted_echo`, `hosted_door`)
`rivals_envoy`  Envoy asks the sidecar by ext_authz, beside Envoy + OPA and a service that permits everything
`check`         the decision API, `written` and `committed`
`rivals_cerbos` the decision API on both hosts, beside Cerbos with its audit log (`cerbos/policies`)
`in_process`    a service with the guard inside, against itself without
`pipeline`      the pipeline without transport, stage by stage (in a process of its own: `point`)
`people`        guarded calls with many people and ids against few
`engine`        the embedded engine with much data against little (in a process of its own: `evaluations`)
`ingest`        what the store takes in, proofs, searches (records by `producer`)
`replay`        recorded decisions through a candidate: `python -m tests.benchmarks.replay`, by itself
`shadow`        what a shadow costs the call path: `python -m tests.benchmarks.shadow`, by itself
`worker`        memory of a worker, cold start
==============  =====================================================================================================

Servers under test run on one core; load, upstream and whatever else is needed run on another. Rounds of the things
that are compared alternate: A B A B. A figure is the median of its rounds. Nothing is asserted: a busy machine gives
other figures, and their ratios hold better than they do.
"""
