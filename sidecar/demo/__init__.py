"""The demonstration: a data service, a sidecar in front of it and a store, as separate processes on one machine.

`main` plays it; `world` makes keys, certificates, tokens, people, users and settings in a folder; `service` is the
guarded data service and `users` its data; `processes` starts and stops the parts; `client` is an ordinary grpcio
client; `scenes` says what is tried and what must come of it; `epilogue` searches, verifies and tampers; `show` prints.
Nothing here is imported by the product.
"""
