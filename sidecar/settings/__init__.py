"""Settings, strictly: an unknown key or a bad value stops the process with its path, its value and the fix.

`sidecar` is the model of sidecar.yaml, `oversight` of oversight.yaml, `values` the spelling of durations, sizes and
paths, `loader` reads a file (and `CUSTOMHOUSE_...` from the environment) into a model; `settled` is one without
pydantic, for processes that serve; `environment` is where the environment is read. Only composition roots and the command
line read settings; everything else takes plain arguments.
"""
