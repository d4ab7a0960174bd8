/**
 * Asks one question with the module that the page uses.
 *
 * Environment: CHATBACK_URL (default http://127.0.0.1:8080), CHATBACK_EMAIL, CHATBACK_PASSWORD.
 */
import { signIn } from "./chatback.mjs";

const { CHATBACK_URL: url = "http://127.0.0.1:8080", CHATBACK_EMAIL: email, CHATBACK_PASSWORD: password } = process.env;
try {
  const chat = await signIn(url, email, password);
  const { conversation } = await chat.call("POST", "/v1/conversations", { title: "From fetch" });
  for await (const event of chat.send(conversation.conversationId, process.argv.slice(2).join(" ") || "Hello")) {
    if (event.textDelta) process.stdout.write(event.textDelta.text);
    if (event.attemptReset) console.log("\n[the answer begins anew]");
    if (event.completed) console.log(`\n[${event.seq} events, ${event.completed.finishReason}]`);
    if (event.failed) console.log(`\n[failed: ${event.failed.message} (${event.failed.reason})]`);
    if (event.cancelled) console.log("\n[cancelled]");
  }
} catch (error) {
  console.error(`${error.message} (${error.reason || error.cause?.code || "no answer"})`);
  process.exitCode = 1;
}
