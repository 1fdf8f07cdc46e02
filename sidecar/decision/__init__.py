"""PDP: decides. Knows no token, no protobuf and no caller, only the input document.

`embedded` answers from a compiled bundle in this process, `bundle` reads, tests and activates one, `guard` tries it
with leaves unknown, `cache` remembers answers. `_engine` is the compiled part (`engine/`, Rust).
"""
