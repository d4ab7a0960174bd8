/**
 * ChatBack for browsers: fetch and its streams, nothing else. (EventSource can neither POST nor send a token.)
 *
 *     const chat = await signIn("http://127.0.0.1:8080", email, password);
 *     const { conversation } = await chat.call("POST", "/v1/conversations", { title: "First" });
 *     for await (const event of chat.send(conversation.conversationId, "Hello")) show(event);
 *
 * Requests and responses are the messages of the contract as JSON, with fields in lowerCamelCase.
 */

const PATIENCE_MS = 60_000; // how long a broken stream is tried for without a new event
const LAST_EVENTS = ["completed", "failed", "cancelled"];

/** A refusal. Programs should go by its reason, e.g. "CREDENTIALS_INVALID"; the message is for people. */
export class ChatBackError extends Error {
  constructor({ code, status, message, details = [] }) {
    super(message);
    this.code = code; // of HTTP
    this.status = status; // of gRPC, e.g. "NOT_FOUND"
    this.reason = details.find((detail) => detail.reason)?.reason ?? "";
  }
}

/** Begins a session. The page has to sign in again when tokens.refreshToken expires. */
export async function signIn(url, email, password) {
  const { tokens } = await parsed(await request(url, "POST", "/v1/auth:login", { email, password }));
  return new ChatBack(url, tokens);
}

export class ChatBack {
  #url;
  #tokens;
  #renewal;

  constructor(url, tokens) {
    this.#url = url;
    this.#tokens = tokens;
  }

  /** Returns the response of a call that is no stream. */
  async call(method, path, body) {
    return parsed(await this.#request(method, path, body));
  }

  /** Asks, and yields every event of the answer, each once and in order, over as many streams as it takes. */
  async *send(conversationId, content) {
    // The requestId makes the question safe to repeat.
    const question = { content, requestId: crypto.randomUUID() };
    let open = () => this.#request("POST", `/v1/conversations/${conversationId}/messages:send`, question);
    let patient = Date.now() + PATIENCE_MS;
    for (let pause = 200; ; pause = Math.min(2 * pause, 3000)) {
      try {
        for await (const event of events(await open())) {
          yield event;
          if (LAST_EVENTS.some((name) => name in event)) return;
          open = () => this.#request("GET", `/v1/runs/${event.runId}/events?after_seq=${event.seq}`);
          [patient, pause] = [Date.now() + PATIENCE_MS, 200];
        }
      } catch (error) {
        // fetch says TypeError when the network fails; a service that stops says 503.
        if (!(error instanceof TypeError) && error.code !== 503) throw error;
      }
      if (Date.now() > patient) throw new Error("the connection to the service is lost; the answer goes on there");
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async #request(method, path, body) {
    if (Date.parse(this.#tokens.accessExpireTime) < Date.now() + 20_000) await this.#renew();
    return request(this.#url, method, path, body, this.#tokens.accessToken);
  }

  /** Exchanges the refresh token, once for all calls that wait for it. */
  #renew() {
    const { refreshToken } = this.#tokens;
    this.#renewal ??= request(this.#url, "POST", "/v1/auth:refresh", { refreshToken })
      .then(parsed)
      .then(({ tokens }) => void (this.#tokens = tokens))
      .finally(() => void (this.#renewal = undefined));
    return this.#renewal;
  }
}

/** Returns the response if it is a good one. */
async function request(url, method, path, body, token) {
  const headers = { ...(body && { "content-type": "application/json" }), ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  const failure = await response.json().catch(() => undefined);
  throw new ChatBackError(failure?.error ?? { code: response.status, message: response.statusText });
}

async function parsed(response) {
  return response.json();
}

/** Yields the run events of a stream of server-sent events. */
async function* events(response) {
  let rest = "";
  for await (const piece of pieces(response.body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length === 0) continue; // a comment that keeps the connection open
      const message = JSON.parse(data.join("\n"));
      if (message.error) throw new ChatBackError(message.error);
      yield message.event;
    }
  }
}

/** Iterates over a stream also where a browser's streams can't do it by themselves. */
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (let read; !(read = await reader.read()).done; ) yield read.value;
  } finally {
    await reader.cancel();
  }
}
