"""Composition root of the sidecar: settings in, running doors out.

`process` serves until it is told to stop; `composition` puts the parts together; `build` makes each from its settings;
`keys` and `records` join spool, recorder, period keys and delivery; `standing` knows which policy, directory and index
are in force and follows their files, `policy` the bundle's folder; `grants` and `renewal` follow exceptions and the
upstream's certificates; `unhandled` counts what no handler sees; `check` tries everything without serving.
Nothing else on the sidecar's side reads settings, the wall clock, the environment or randomness.
"""
