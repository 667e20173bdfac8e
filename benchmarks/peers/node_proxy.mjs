// What the original's route handler does, without Next.js around it: fetch the stream, pipe its body to the client.
// As there, the fetch is not tied to the client: when a browser goes, upstream is not told.
// Usage: node node_proxy.mjs PORT UPSTREAM_PORT
import http from "node:http";
import { Readable } from "node:stream";

const [port, upstreamPort] = process.argv.slice(2).map(Number);

const server = http.createServer(async (request, response) => {
  const url = `http://127.0.0.1:${upstreamPort}${request.url}`;
  const upstream = await fetch(url, {
    headers: { Authorization: "Bearer sk-Xnai-bench", Accept: "text/event-stream" },
  });
  response.writeHead(upstream.status, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    Connection: "keep-alive",
  });
  Readable.fromWeb(upstream.body).on("error", () => response.destroy()).pipe(response);
});

server.listen({ port, host: "127.0.0.1", backlog: 4096 });
process.on("SIGTERM", () => process.exit(0));
