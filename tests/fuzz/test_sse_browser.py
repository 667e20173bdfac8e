"""The page's own parser, static/js/sse.js, in Chromium: it reads every case and much noise as the standard says."""

from __future__ import annotations

import base64
import random
from pathlib import Path

from playwright.async_api import Page

from messaging.sse import Event, encode
from tests.fuzz.cases import all_cases, random_cuts, random_stream
from tests.fuzz.reference import read

SOURCE = Path(__file__).parents[2] / "static" / "js" / "sse.js"
LIMIT = 1 << 30
RANDOM_STREAMS = 1_500

# As stream.js reads: bytes through a TextDecoder that leaves the byte order mark, and its text to the parser.
READ_ALL = """
async ({ source, ways }) => {
  const { Parser } = await import(`data:text/javascript;base64,${source}`);
  return ways.map((chunks) => {
    const parser = new Parser();
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const events = [];
    for (const chunk of chunks) {
      const bytes = Uint8Array.from(atob(chunk), (letter) => letter.charCodeAt(0));
      events.push(...parser.feed(decoder.decode(bytes, { stream: true })));
    }
    return events.map(({ event, data, id }) => [event, data, id]);
  });
}
"""


async def in_the_browser(page: Page, ways: list[list[bytes]]) -> list[list[Event]]:
    sent = [[base64.b64encode(chunk).decode() for chunk in chunks] for chunks in ways]
    source = base64.b64encode(SOURCE.read_bytes()).decode()
    read_there = await page.evaluate(READ_ALL, {"source": source, "ways": sent})
    return [[Event(*event) for event in events] for events in read_there]


async def test_the_page_reads_every_case_however_it_is_cut(page: Page) -> None:
    dice = random.Random(1)
    ways: list[list[bytes]] = []
    for case in all_cases():
        stream = b"".join(case.chunks)
        ways += [list(case.chunks), [stream], random_cuts(dice, stream), random_cuts(dice, stream)]
        if len(stream) < 1_000:
            ways.append([stream[i : i + 1] for i in range(len(stream))])
    await _agrees(page, ways)


async def test_the_page_reads_noise_as_the_standard_does(page: Page) -> None:
    dice = random.Random(2)
    streams = [random_stream(dice) for _ in range(RANDOM_STREAMS)]
    await _agrees(page, [random_cuts(dice, stream) for stream in streams])


async def test_the_page_reads_what_we_write_and_nothing_else(page: Page) -> None:
    """F124: through the parser that people's browsers run, too."""
    hostile = [
        "",
        "\n",
        "\r",
        "\r\n",
        "x\n\nevent: goodbye\ndata: {}",
        "\ufeff",
        " x",
        "\u2028",
        "a\x00b",
        "\U0001f600",
    ]
    written = [encode("message", data, "5.x") for data in hostile]
    ways = [[bytes([byte]) for byte in event] for event in written] + [[event] for event in written]
    found = await in_the_browser(page, ways)
    lines = [data.replace("\r\n", "\n").replace("\r", "\n") for data in hostile]
    assert found == [[Event("message", data, "5.x")] for data in lines] * 2


async def _agrees(page: Page, ways: list[list[bytes]]) -> None:
    found = await in_the_browser(page, ways)
    assert len(found) == len(ways)
    for chunks, events in zip(ways, found, strict=True):
        assert events == read(b"".join(chunks), LIMIT).events, chunks
