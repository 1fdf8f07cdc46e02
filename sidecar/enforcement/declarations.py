"""What each door can fulfil (interfaces: "Doors and obligations"); any other obligation is a deny.

* `proxy` (grpc.aio or hosted in Envoy), `interceptor` (in process, gRPC or ASGI) and `ext_proc` see every message.
* `ext_authz` sees a request and nothing after it: what it cannot hold anybody to, it refuses.
* `check` and `authzen` hand the obligations to the caller, a registered workload, which has to confirm them; what was
  confirmed, or that nothing was, stands in the outcome record. An open stream is not theirs to decide again.
  `CHECK_ANSWERS` is the same door for a caller that asks again before it releases an answer.
"""

from typing import Final

from sidecar.enforcement.call import Door

_CONTENT = frozenset({"redact_fields", "mask_fields", "drop_records", "limit_records"})
_ALL = _CONTENT | {"require_durability", "recheck_seconds"}

PROXY: Final = Door(name="proxy", fulfils=_ALL)
INTERCEPTOR: Final = Door(name="interceptor", fulfils=_ALL)
EXT_PROC: Final = Door(name="ext_proc", fulfils=_ALL)
EXT_AUTHZ: Final = Door(name="ext_authz", fulfils=frozenset({"require_durability"}), sees_answers=False)
CHECK: Final = Door(name="check", fulfils=_CONTENT | {"require_durability"}, sees_answers=False)
CHECK_ANSWERS: Final = Door(name="check", fulfils=_CONTENT | {"require_durability"})
AUTHZEN: Final = Door(name="authzen", fulfils=_CONTENT | {"require_durability"}, sees_answers=False)
DOORS: Final = {door.name: door for door in (PROXY, INTERCEPTOR, EXT_PROC, EXT_AUTHZ, CHECK, AUTHZEN)}
