// How a script speaks with the Go test that started it: a line of JSON each way.
// ../script_test.go is the other side.
import { createInterface } from "node:readline";

export const config = JSON.parse(process.argv[2]);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function ask(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
  const { value, done } = await lines.next();
  if (done) process.exit(1); // the test has ended
  const answer = JSON.parse(value);
  if (answer.error) throw new Error(answer.error);
  return answer;
}

// browse opens an address as a willing person, who signs in and allows what is
// asked for, and returns where that ended. In a fresh browser nobody has signed in.
export const browse = async (url, { fresh = false } = {}) => new URL((await ask({ do: "browse", url: String(url), fresh })).url);

// signet runs a command of the program and returns what it tells.
export const signet = async (...args) => (await ask({ do: "signet", args })).told;

const reasons = (err) => {
  const all = [];
  for (let e = err; e; e = e.cause instanceof Error ? e.cause : undefined) all.push(`${e.code ?? ""} ${e.error ?? ""} ${e.message} ${e.error_description ?? ""}`);
  return all.join("; ").replaceAll("\n", " ");
};

// step is something that has to go well. What follows it may need what it returns.
export async function step(name, run) {
  try {
    const value = await run();
    await ask({ do: "passed", name });
    return value;
  } catch (err) {
    await ask({ do: "failed", name, why: err.stack + "\n" + reasons(err) });
    process.exit(1);
  }
}

// refuse is something that the library has to refuse; the test judges why it does.
export async function refuse(name, run) {
  let why;
  try {
    await run();
  } catch (err) {
    why = reasons(err);
  }
  await ask(why === undefined ? { do: "accepted", name } : { do: "refused", name, why });
}

// lies has the library refuse each of the issuer's lies.
export async function lies(run) {
  for (const lie of config.lies) {
    await ask({ do: "tell", name: lie });
    await refuse(lie, run);
  }
  await ask({ do: "tell", name: "" });
}

export function equal(got, want, what) {
  if (got !== want) throw new Error(`${what}: got ${got}, want ${want}`);
}

export function truthy(got, what) {
  if (!got) throw new Error(`${what}: got ${got}`);
}

export async function end() {
  await ask({ do: "end" });
  process.exit(0);
}
