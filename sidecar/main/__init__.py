"""Composition root of the sidecar: settings in, running doors out.

`process` serves until it is told to stop; `build` makes each part from its settings; `records` joins spool, recorder,
period keys and delivery; `standing` knows which policy, directory and index are in force, and follows their files.
Nothing else on the sidecar's side reads settings, the wall clock, the environment or randomness.
"""
