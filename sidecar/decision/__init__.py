"""PDP: decides. Knows no token, no protobuf and no caller, only the input document.

`embedded` answers from a compiled bundle in this process, `guard` tries it with leaves unknown, `cache` remembers
answers. `_engine` is the compiled part (`native/`, Rust).
`bundle` is a policy bundle as read, `manifest` what it says of itself; `folder` and `archive` read and write one,
`signatures` and `signers` say whose it is, `activation` makes of it something that answers.
`opa` answers from an OPA server instead: `opa_server` keeps a local one alive, `opa_program` runs the program once,
`opa_http` is a question and its answer; `verified` has a second engine check the first. `engines` are their ports.
`flips` compares two decisions; `replay` asks a bundle what was asked before, also as a child process; `shadow` asks a
candidate what the policy in force has just answered.
"""
