// One stream for all tabs of this browser that show the same conversation: a browser opens six connections to a site
// over HTTP/1.1, and a seventh tab would hang. The tab that holds a Web Lock listens (stream.js) and tells the others
// over a BroadcastChannel; when it closes, the lock goes to the next, which begins where it had heard to. A tab that
// hears nothing in time, or a browser without locks (they need HTTPS or localhost), has a stream of its own.
import { emit } from "./fragment.js";
import { leaveFor } from "./signin.js";
import { Listener } from "./stream.js";

const KEPT_EVENTS = 200; // what the leader can tell a tab that joins
const PATIENCE = 2.5; // heartbeats without a word from the leader
const GRACE_SECONDS = 3; // for the first word
const ASIDE = new Set(["stream:byte", "stream:state", "stream:resync", "stream:gone"]); // no news to a page drawn later

class Tab {
  #cursor;
  #listener = null;
  #release = null;
  #kept = [];
  #state = null;
  #heard = 0;
  #watch = 0;

  constructor(settings) {
    this.settings = settings;
    this.#cursor = this.start = settings.cursor;
    this.name = `stream ${settings.streamUrl}`;
  }

  /** Lead if nobody does, follow until then. */
  join() {
    this.channel = new BroadcastChannel(this.name);
    this.channel.addEventListener("message", ({ data }) => this.#hear(data));
    this.channel.postMessage({ asks: this.start });
    this.#heard = Date.now() + GRACE_SECONDS * 1000 - this.#patience();
    this.#watch = setInterval(() => Date.now() - this.#heard > this.#patience() && this.#goAlone(), 1000);
    navigator.locks.request(this.name, () => new Promise((release) => this.#lead(release))).catch(() => this.#goAlone());
    addEventListener("pagehide", () => this.#release?.());
    for (const event of ["online", "resume"]) addEventListener(event, () => this.#wake(), { capture: true });
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake());
    addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
  }

  #patience = () => Number(this.settings.heartbeatSeconds) * PATIENCE * 1000;

  /** Somebody looks again, or the world may have changed: the leader has to show now that it is alive. */
  #wake() {
    if (this.#listener) return; // it wakes by itself
    const alone = Date.now() + GRACE_SECONDS * 1000 - this.#patience();
    this.#heard = Math.min(this.#heard, alone);
    this.channel.postMessage({ isThere: true });
  }

  #lead(release) {
    clearInterval(this.#watch);
    this.#release = release;
    if (this.#listener) return; // it went alone before; now it tells the others, too
    this.start = this.#cursor;
    this.#listen();
  }

  #goAlone() {
    clearInterval(this.#watch);
    if (!this.#listener) this.#listen();
  }

  #listen() {
    this.#listener = new Listener(this.settings, (name, detail) => this.#tell(name, detail), this.#cursor);
    this.#listener.start();
  }

  #tell(name, detail) {
    const word = { name, detail, cursor: this.#listener.cursor };
    if (name === "stream:state") this.#state = word;
    if (!ASIDE.has(name)) this.#kept = [...this.#kept.slice(1 - KEPT_EVENTS), word];
    if (this.#release) this.channel.postMessage(word);
    emit(name, detail);
  }

  #hear({ asks, isThere, to, words, name, detail, cursor }) {
    if (asks !== undefined) this.#welcome(asks);
    else if (isThere) this.#answer();
    else if (this.#listener || (to !== undefined && to !== this.start)) return;
    else if (words) for (const word of words) this.#take(word);
    else this.#take({ name, detail, cursor });
  }

  #take({ name, detail, cursor }) {
    this.#heard = Date.now();
    if (cursor) this.#cursor = cursor;
    emit(name, detail);
    if (name === "stream:state") leaveFor(detail.state, this.settings, detail.code);
  }

  /** Another tab asks whether this one is still there, having perhaps slept: the connection is looked at, too. */
  #answer() {
    if (!this.#release || !this.#state) return;
    this.#listener.check();
    this.channel.postMessage(this.#state);
  }

  /** A tab joins: tell it how things are and what it may have missed since its page was drawn. */
  #welcome(start) {
    if (!this.#release || !this.#state) return;
    const isCovered = place(start) >= place(this.start) && this.#kept.length < KEPT_EVENTS;
    const words = isCovered ? this.#kept : [{ name: "stream:anew", detail: {}, cursor: this.#listener.cursor }];
    this.channel.postMessage({ to: start, words: [this.#state, ...words] });
  }
}

/** The part of a cursor that sorts: the place of a message in its inbox. */
const place = (cursor) => cursor.split(".")[0];

/** Hear this conversation's stream, through another tab if there is one. */
export function listen(settings) {
  if (!("live" in settings)) return;
  if (navigator.locks && "BroadcastChannel" in window) new Tab(settings).join();
  else new Listener(settings, emit, settings.cursor).start();
}
