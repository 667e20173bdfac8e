"""Waking whoever waits for something to change."""

import asyncio


class Bell:
    """Each `wait` returns at the next `ring`."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []

    def ring(self) -> None:
        for event in self._waiting:
            event.set()
        self._waiting.clear()

    async def wait(self) -> None:
        event = asyncio.Event()
        self._waiting.append(event)
        await event.wait()
