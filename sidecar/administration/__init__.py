"""Policy administration point (PAP): what is made and checked before a sidecar uses it.

`directory` builds the snapshot of people and entities, `subjects` the index of US data subjects; `rows` is how both
read their sources: strictly, naming each bad row, and writing nothing while there is one.
"""
