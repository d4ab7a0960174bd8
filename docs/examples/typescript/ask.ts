/**
 * Asks ChatBack one question over gRPC and prints the answer while it is written, also through a broken connection.
 *
 * Environment: CHATBACK_TARGET (default 127.0.0.1:50051), CHATBACK_EMAIL, CHATBACK_PASSWORD.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { AuthService } from "./gen/chatback/v1/auth_service_pb.js";
import { ChatService } from "./gen/chatback/v1/chat_service_pb.js";
import { ConversationService } from "./gen/chatback/v1/conversation_service_pb.js";
import { FinishReason, type RunEvent } from "./gen/chatback/v1/run_pb.js";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

type Question = { conversationId: string; content: string; requestId: string };

const PATIENCE_MS = 60_000; // how long a broken stream is tried for without a new event
const ABOUT_THE_STREAM = new Set([Code.Unavailable, Code.Canceled, Code.Aborted]);

let accessToken = "";
const authorize: Interceptor = (next) => (request) => {
  if (accessToken) request.header.set("authorization", `Bearer ${accessToken}`);
  return next(request);
};

const transport = createGrpcTransport({
  baseUrl: `http://${process.env.CHATBACK_TARGET ?? "127.0.0.1:50051"}`, // https:// where TLS is in front
  interceptors: [authorize],
  pingIntervalMs: 20_000,
  pingTimeoutMs: 8_000,
});
const chat = createClient(ChatService, transport);

/** A program that runs for longer renews the token with refreshTokens before tokens.accessExpireTime. */
async function signIn(): Promise<void> {
  const { CHATBACK_EMAIL: email, CHATBACK_PASSWORD: password } = process.env;
  const login = await createClient(AuthService, transport).login({ email, password }, { timeoutMs: 10_000 });
  accessToken = login.tokens?.accessToken ?? "";
}

/** Yields every event of the answer, each once and in order, over as many streams as it takes. */
async function* follow(runs: Client<typeof ChatService>, question: Question): AsyncGenerator<RunEvent> {
  let last: RunEvent | undefined;
  let patient = Date.now() + PATIENCE_MS;
  for (let pause = 200; ; pause = Math.min(2 * pause, 3_000)) {
    let failure = new ConnectError("the stream ended before the answer", Code.Unavailable);
    try {
      // The question is asked until its run is known, and from then on what comes after the last event.
      const stream = last ? runs.streamRun({ runId: last.runId, afterSeq: last.seq }) : runs.sendMessage(question);
      for await (const { event } of stream) {
        if (!event) continue;
        yield event;
        if (["completed", "failed", "cancelled"].includes(event.event.case ?? "")) return;
        [last, patient, pause] = [event, Date.now() + PATIENCE_MS, 200];
      }
    } catch (error) {
      failure = ConnectError.from(error);
    }
    if (!ABOUT_THE_STREAM.has(failure.code) || Date.now() > patient) throw failure;
    await sleep(pause);
  }
}

function show({ event, seq }: RunEvent): void {
  switch (event.case) {
    case "textDelta":
      process.stdout.write(event.value.text);
      break;
    case "attemptReset":
      console.log("\n[the answer begins anew]");
      break;
    case "completed":
      console.log(`\n[${seq} events, ${FinishReason[event.value.finishReason]}]`);
      break;
    case "failed":
      console.log(`\n[failed: ${event.value.message} (${event.value.reason})]`);
      break;
    case "cancelled":
      console.log("\n[cancelled]");
  }
}

try {
  await signIn();
  const made = await createClient(ConversationService, transport).createConversation(
    { title: "From TypeScript", requestId: randomUUID() },
    { timeoutMs: 10_000 },
  );
  const conversationId = made.conversation?.conversationId ?? "";
  const content = process.argv.slice(2).join(" ") || "Hello";
  // The requestId makes the question safe to repeat.
  for await (const event of follow(chat, { conversationId, content, requestId: randomUUID() })) show(event);
} catch (error) {
  const failure = ConnectError.from(error);
  const [info] = failure.findDetails(ErrorInfoSchema); // its reason is what programs should go by
  console.error(`${failure.rawMessage} (${info?.reason || Code[failure.code]})`);
  process.exitCode = 1;
}
