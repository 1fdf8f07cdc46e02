"""The command line: each command turns its arguments into one function call and prints what came back.

Exit codes: 0, 1 for a finding, 2 for bad usage or configuration. Modules are imported inside the commands, so that the
store's commands load nothing of the sidecar's side and `--help` loads neither.
"""
