// Runs in Node.js what a test sends, as a browser's `evaluate` does: a line of JSON has a function's text and its
// argument, and is answered with a line that has what the function returns. Names of the client are global.

import { createInterface } from "node:readline";

Object.assign(globalThis, await import(process.argv[2]));

for await (const line of createInterface({ input: process.stdin })) {
  const { code, argument } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await (0, eval)(`(${code})`)(argument)) ?? null };
  } catch (error) {
    answer = { error: error?.stack ?? String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
