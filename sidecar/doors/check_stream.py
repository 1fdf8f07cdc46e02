"""CheckStream: many questions under way at once on one stream, answered as they are ready."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.enforcement.call import AnswerSink
from sidecar.errors import InterceptError

IN_FLIGHT = 256
"""Beyond it nothing more is read, which in the end stops the caller's sending (RFC 9113, section 5.2)."""

Each = Callable[[pb.CheckStreamRequest], Awaitable[bytes]]
"""Answers one question: a `CheckStreamResponse`, encoded."""


async def relayed(asked: AsyncIterator[pb.CheckStreamRequest], each: Each, answer: AnswerSink) -> None:
    """Answer every question, until the caller has asked the last. InterceptError for an id that is still under way.

    `each` raises nothing but CancelledError. When this ends, nothing it began is still under way, however it ends.
    """
    slots, writing = asyncio.Semaphore(IN_FLIGHT), asyncio.Lock()
    under_way: dict[str, asyncio.Task[None]] = {}

    async def one(question: pb.CheckStreamRequest) -> None:
        try:
            response = await each(question)
            async with writing:
                # Before it is written: the caller may use the id again as soon as it has the answer.
                under_way.pop(question.id, None)
                await answer.message(response)
        finally:
            slots.release()

    tasks: set[asyncio.Task[None]] = set()
    try:
        async for question in asked:
            if question.id in under_way:
                raise InterceptError("two questions under way have the same id")
            await slots.acquire()
            task = under_way[question.id] = asyncio.create_task(one(question))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
