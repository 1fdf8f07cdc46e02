"""Spool: records on their way to the oversight store, on disk, in order, none lost without it showing.

One folder per producer slot (`<spool>/<slot>/`), owned by one process at a time (`lock`):

* `00000001.seg`, `00000002.seg`, ...: append-only segments. `segment` has the header, `frame` the frames.
* `state`: the chain's head, and which segments were deleted, so that a missing one is noticed (`state`).
* `lock`: held with flock(2) while a process uses the slot.

==============  =====================================================================================================
module          gives
==============  =====================================================================================================
``log``         `Spool`: append, the three levels, acknowledgement; what happens when the disk says no
``slot``        `SpoolOptions`, `Draft`, the lock
``start``       takes the slot, reads what is there, begins an epoch
``reader``      `SpoolReader`: the durable, unacknowledged records in order, for the sender
``recovery``    what a start finds: whole segments, a torn tail to cut, damage to stop at
``unfinished``  calls that were permitted and never ended, and the outcome their successor writes
``shelf``       the segments: made, written, given up, deleted
``retention``   which segments may be deleted
``deletions``   when they are
``waiters``     who waits for which record
``committer``   the thread that calls fdatasync
``epoch``       a start of the producer: its UUIDv7, its key, sealed to the store
``segment``     `Segment` and its header
``frame``       length, CRC32C, payload; one record per frame
``state``       the small file that outlives the segments
``files``       the few things asked of a file system, so that tests can make them fail
==============  =====================================================================================================

Invariants:

* A record's seq is taken and its bytes are written in one step without a pause, so file order is chain order.
* What is sent to the store is durable here first: a successor never denies a record that the store has.
* A failed fdatasync is final for its segment. What was not known durable is written again, same bytes, into the next.
* A segment goes only after `state`, which then says so, is durable.
"""
