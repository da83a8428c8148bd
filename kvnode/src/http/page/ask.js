// Every request of this page goes through here, to the node that served it and to no other.
//
// A token, if the node wants one, is kept for this tab alone and travels as `Authorization`. A refusal, a redirect and
// no answer at all are one kind of error, with a text for people.

const TOKEN = "kv-token";

/** How long an answer may take, in ms. */
const PATIENCE = 8_000;

let whenUnauthorised = async () => false;
let whenHeard = () => {};

/** A request that came to nothing. `status` is 0 if there was no answer. */
export class Refused extends Error {
  constructor(status, code, message, headers = new Headers()) {
    super(message);
    Object.assign(this, { status, code, headers });
  }

  /** Whether a write may have been applied all the same. */
  get isUnknown() {
    const applied = this.headers.get("kv-applied");
    return this.status === 0 || applied === "unknown" || (this.status >= 500 && applied !== "no");
  }
}

/** Who is asked for a token after a 401; gives whether there is a new one. */
export const onUnauthorised = (handler) => (whenUnauthorised = handler);

/** Who is told after each request whether the node answered. */
export const onHeard = (handler) => (whenHeard = handler);

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => sessionStorage.setItem(TOKEN, text),
};

/** The answer, if it is a success; its body is still to be read. */
export const ask = (path, { method = "GET", headers = {}, body } = {}) =>
  send(path, { method, headers, body, within: PATIENCE });

/** The answer of a request that never ends by itself. */
export const stream = (path, { headers = {}, signal }) => send(path, { method: "GET", headers, signal });

/** A JSON document. */
export const json = async (path, options) => (await ask(path, options)).json();

/** The lines of an answer in NDJSON. */
export async function lines(path, options) {
  const text = await (await ask(path, options)).text();
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

async function send(path, options) {
  const used = token.get();
  const answer = await exchange(path, options, used);
  if (answer.status === 401 && (token.get() !== used || (await whenUnauthorised(used !== "")))) {
    return send(path, options);
  }
  if (answer.ok) return answer;
  throw await refusal(answer);
}

/** One attempt. Its time begins here, not while a person looks for the token. */
async function exchange(path, { method, headers: given, body, signal, within }, used) {
  const headers = used ? { ...given, authorization: `Bearer ${used}` } : given;
  const fixed = { cache: "no-store", credentials: "omit", redirect: "manual", referrerPolicy: "no-referrer" };
  try {
    const limit = within ? AbortSignal.timeout(within) : signal;
    const answer = await fetch(path, { method, headers, body, signal: limit, ...fixed });
    whenHeard(true);
    return answer;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    whenHeard(false);
    const late = error.name === "TimeoutError";
    throw new Refused(0, "no_answer", late ? "The node did not answer in time." : "The node does not answer.");
  }
}

async function refusal(answer) {
  if (answer.type === "opaqueredirect") {
    return new Refused(307, "redirect", "This key belongs to another shard.");
  }
  const text = await answer.text().catch(() => "");
  const { error = "", message = text.trim() } = parsed(text);
  return new Refused(answer.status, error, message || `The node answered ${answer.status}.`, answer.headers);
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
