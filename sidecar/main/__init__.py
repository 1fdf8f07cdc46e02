"""Composition root of the sidecar: settings in, running doors out.

`process` serves until it is told to stop; `heap` is what its memory looks like by then; `composition` puts the parts
together; `build` makes each from its settings;
`keys` and `records` join spool, recorder, period keys and delivery; `standing` knows which policy, directory and index
are in force. The policy: `policy_start` chooses the first, `sources`, `policy_http` and `policy_bucket` are where it comes
from, `policy_admission` and `policy_signers` what it has to pass, `policy_follow` replaces it, `policy_commands` is what
people ask for, `proven` keeps what was in force, `policy` answers from it. `grants`, `authorizations` and `renewal` follow
exceptions, what lifts the DSP, and the upstream's certificates; `unhandled` counts what no handler sees; `check` tries
everything without serving; `shadow` follows a candidate that is only compared;
`engines` chooses who decides and who checks it, `disagreements` tells where those differ.
Nothing else on the sidecar's side reads settings, the wall clock, the environment or randomness.
"""
