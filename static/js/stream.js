// The message listener: one stream of this conversation, kept up for as long as the page is shown.
//
// States, told to the page as `stream:state` {state, attempt, seconds, sentence}:
//   connecting    the first request is on its way
//   live          the server has said `connected`, and bytes come in time
//   catching-up   something woke us: the connection is made anew, and brings what was missed
//   reconnecting  lost, here or between the servers; attempt 1 to 5 waits 1, 2, 4, 8, 16 s (and up to 20 % more)
//   too-many      refused (429): tried again later, and when the person comes back to this tab
//   signed-out    refused (401) or told so: on the way to the sign-in
//   no-access     refused (403) or told so; over, and what was shown is taken away
//   stopped       refused (404, 409, 422); over, the sentence says why
//   misconfigured refused in a way that five attempts would not change; looked at again every minute
//   unavailable   the fifth attempt failed: on the way to the waiting room
// Only a heartbeat or a message sets the count of attempts back, so a server that accepts and drops is not tried for
// ever. While the device is offline, and while we are asked to slow down, attempts are not counted. Nothing is opened
// after `pagehide`; `pageshow` from the back/forward cache opens again. What the stream says is told as
// `stream:message`, `stream:toast`, `stream:recovered` {html}, `stream:unread` {…}, `stream:counts` {counts, total},
// `stream:gone` {topicKey} and `stream:resync`.
import { leaveFor } from "./signin.js";
import { Parser } from "./sse.js";

const DELAYS = [1, 2, 4, 8, 16];
const JITTER = 0.2;
const PATIENCE = 2.5; // heartbeats without a byte
const LOOK_AGAIN_SECONDS = { "too-many": 30, misconfigured: 60 };
const WAKE_SECONDS = 2;
const REFUSED = { 404: "stopped", 409: "stopped", 422: "stopped", 429: "too-many" };
const OVER = new Set(["signed-out", "no-access", "stopped", "unavailable"]);

export class Listener {
  #attempt = 0;
  #code = "STREAM_LOST";
  #state = "";
  #request = null;
  #retry = 0; // timers
  #watch = 0;
  #lastByte = 0; // moments
  #lastWake = 0;
  #isLeft = false;
  #isUpstreamAway = false;

  /** `settings` are the page's data-*; `tell(name, detail)` hears every event; `cursor` is where to begin. */
  constructor(settings, tell, cursor) {
    this.settings = settings;
    this.tell = tell;
    this.cursor = cursor;
    this.patience = Number(settings.heartbeatSeconds) * PATIENCE * 1000;
  }

  start() {
    this.#tell("connecting");
    this.#open();
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", (event) => event.persisted && this.#return());
    addEventListener("online", () => this.#wake({ isFresh: true }));
    document.addEventListener("resume", () => this.#wake({ isFresh: true }));
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake({ isFresh: false }));
  }

  /** Somebody looks at another tab that hears through this one. */
  check() {
    this.#wake({ isFresh: false });
  }

  async #open() {
    this.#close();
    const request = new AbortController();
    this.#request = request;
    this.#isUpstreamAway = false;
    this.#lastByte = Date.now();
    this.#watch = setInterval(() => Date.now() - this.#lastByte > this.patience && this.#lost(), 1000);
    try {
      const response = await fetch(this.settings.streamUrl, {
        headers: { Accept: "text/event-stream", "Last-Event-ID": this.cursor },
        cache: "no-store",
        redirect: "manual",
        signal: request.signal,
      });
      if (await this.#isRefused(response, request)) return;
      await this.#read(response.body, request);
    } catch (problem) {
      if (!(problem instanceof TypeError) && problem.name !== "AbortError") reportError(problem);
    }
    if (this.#request === request) this.#lost();
  }

  async #read(body, request) {
    const parser = new Parser();
    const reader = body.pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true })).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#lastByte = Date.now();
      this.tell("stream:byte", {});
      for (const event of parser.feed(value)) {
        if (this.#request !== request) return;
        if (event.id) this.cursor = event.id;
        this.#take(event);
      }
    }
  }

  #take({ event, data }) {
    if ((event === "heartbeat" || event === "message") && !this.#isUpstreamAway) this.#attempt = 0;
    if (event === "message" || event === "toast" || event === "recovered") this.tell(`stream:${event}`, { html: data });
    else if (event === "unread" || event === "counts" || event === "gone") this.tell(`stream:${event}`, JSON.parse(data));
    else if (event === "resync") this.tell("stream:resync", {});
    else if (event === "connected") this.#tell("live");
    else if (event === "status") this.#upstream(JSON.parse(data));
    else if (event === "goodbye") this.#dismissed(JSON.parse(data));
  }

  /** The server has lost its own server, and counts the same five attempts; then it ends this stream. */
  #upstream({ state, attempt, retryInSeconds }) {
    if (state === "behind") return this.#tell("catching-up"); // connected, but it can't be told if something is missing
    this.#isUpstreamAway = state !== "live";
    if (this.#isUpstreamAway) this.#attempt = attempt;
    this.#tell(state, "", retryInSeconds);
  }

  async #isRefused(response, request) {
    const isStream = (response.headers.get("Content-Type") || "").startsWith("text/event-stream");
    if (response.ok && isStream) return false;
    const said = await response.json().catch(() => ({}));
    if (this.#request !== request) return true;
    this.#code = said.code || "STREAM_LOST";
    const status = response.type === "opaqueredirect" ? 401 : response.status;
    if (status === 401) this.#signIn();
    else if (status === 403) this.#forbidden(said.error);
    else if (status in REFUSED) this.#end(REFUSED[status], said.error);
    else if (said.details?.throttled) this.#again(Number(response.headers.get("Retry-After")) || DELAYS[0]);
    else if (said.details?.retryable === false) this.#end("misconfigured", said.error);
    else this.#lost();
    if (this.#state in LOOK_AGAIN_SECONDS) this.#later(LOOK_AGAIN_SECONDS[this.#state]);
    return true;
  }

  #dismissed({ reason, retryInSeconds }) {
    if (reason === "signed-out") this.#signIn();
    else if (reason === "forbidden") this.#forbidden();
    else if (reason === "shutdown") this.#again((retryInSeconds || 1) * (1 + Math.random() * JITTER));
    else if (reason === "lagging" && Date.now() - this.#lastWake > WAKE_SECONDS * 1000) {
      this.#lastWake = Date.now();
      this.#again(0);
    } else this.#lost();
  }

  #lost() {
    if (this.#isLeft || OVER.has(this.#state)) return;
    if (navigator.onLine) this.#attempt += 1;
    if (this.#attempt > DELAYS.length) this.#giveUp();
    else this.#again(DELAYS[Math.max(this.#attempt, 1) - 1] * (1 + Math.random() * JITTER));
  }

  #again(seconds) {
    this.#close();
    this.#tell("reconnecting", "", seconds);
    this.#later(seconds);
  }

  #later(seconds) {
    this.#retry = setTimeout(() => this.#open(), seconds * 1000);
  }

  #giveUp() {
    this.#end("unavailable");
    leaveFor("unavailable", this.settings, this.#code);
  }

  #signIn() {
    this.#end("signed-out");
    leaveFor("signed-out", this.settings);
  }

  #forbidden(sentence) {
    this.#end("no-access", sentence);
    leaveFor("no-access", this.settings);
  }

  /** Something says that the world may have changed: look now instead of when the timer says so. */
  #wake({ isFresh }) {
    const now = Date.now();
    if (this.#isLeft || OVER.has(this.#state) || now - this.#lastWake < WAKE_SECONDS * 1000) return;
    const isSilent = now - this.#lastByte > (this.patience / PATIENCE) * 1.2;
    if (this.#request && !isFresh && !isSilent) return;
    this.#lastWake = now;
    if (isFresh) this.#attempt = 0;
    this.#tell("catching-up");
    this.#open();
  }

  #leave() {
    this.#isLeft = true;
    this.#close();
  }

  #return() {
    this.#isLeft = false;
    this.#attempt = 0;
    if (!OVER.has(this.#state)) this.#open();
  }

  #end(state, sentence) {
    this.#close();
    this.#tell(state, sentence);
  }

  #close() {
    clearTimeout(this.#retry);
    clearInterval(this.#watch);
    const request = this.#request;
    this.#request = null;
    request?.abort();
  }

  #tell(state, sentence = "", seconds = 0) {
    this.#state = state;
    this.tell("stream:state", { state, attempt: Math.max(this.#attempt, 1), seconds, sentence, code: this.#code });
  }
}
