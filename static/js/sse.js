// Server-sent events from chunks of text, as the WHATWG standard reads them: lines end with LF, CRLF or CR,
// a CRLF may be cut between two chunks, an event without data is none, an unfinished one at the end is dropped.

export class Parser {
  #rest = "";
  #isAfterCR = false;
  #isStart = true;
  #event = "";
  #data = null;
  id = "";

  /** Take one chunk; returns the events that it completed, as {event, data, id}. */
  feed(chunk) {
    if (chunk === "") return [];
    let text = this.#rest + (this.#isAfterCR && chunk.startsWith("\n") ? chunk.slice(1) : chunk);
    if (this.#isStart) {
      this.#isStart = false;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    const lines = text.split(/\r\n|\n|\r/);
    this.#isAfterCR = text.endsWith("\r");
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line, events) {
    if (line === "") return this.#dispatch(events);
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
  }

  #dispatch(events) {
    if (this.#data !== null) {
      events.push({ event: this.#event || "message", data: this.#data, id: this.id });
    }
    this.#event = "";
    this.#data = null;
  }
}
