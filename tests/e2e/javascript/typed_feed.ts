// A program as people write it: a type checker accepts it, but for the lines that say so.

import { Backoff, EventParser, Gateway, GatewayError } from "./pgpubsub.js";
import type { FeedEvent, FeedState, Gap, Start, StreamEntry } from "./pgpubsub.js";

const gateway = new Gateway("http://localhost:8008/", { token: async () => "token", timing: { silence: 1000 }, fetch });
const other = new Gateway(new URL("http://localhost"), { token: "token" });

export async function iterate(): Promise<Readonly<Record<string, Start>>> {
  const feed = gateway.follow({ channels: ["news"], streams: { orders: "beginning" } });
  for await (const event of feed) {
    if (event.type === "gap") {
      const gap: Gap = event;
      console.log(gap.reason, gap.count?.toFixed());
    } else if (event.stream !== undefined) {
      const entry: StreamEntry = event;
      const payload: string | Uint8Array = entry.payload;
      console.log(entry.position, payload.length);
    } else {
      const text: string = event.payload;
      console.log(event.channel, text);
    }
  }
  // @ts-expect-error: it is read
  feed.state = "live";
  return feed.positions;
}

export async function call(): Promise<void> {
  const feed = gateway.follow(
    { streams: await iterate() },
    {
      onEvent: async (event: FeedEvent) => console.log(event.type),
      onGap: (gap) => console.log(gap.since),
      onState: (state: FeedState, { delay, error }) => console.log(state, delay, error),
      onError: (error) => console.log(error instanceof GatewayError && (error.uncertain || error.status)),
      signal: AbortSignal.timeout(10),
      buffer: 3,
    },
  );
  const next: IteratorResult<FeedEvent, undefined> = await feed.next();
  console.log(next.done, gateway.follow({ streams: ["orders"] }).state);
  feed.close();
}

export async function send(): Promise<number> {
  await other.notify("news", "text", { signal: AbortSignal.timeout(3) });
  // @ts-expect-error: a channel carries text
  await other.notify("news", new Uint8Array(3));
  return other.append("orders", new Uint8Array(3), { key: "k", headers: { a: 1 }, idempotencyKey: "i" });
}

const parsed: string | undefined = new EventParser().push(new Uint8Array(1))[0]?.data;
console.log(parsed, new Backoff({ random: () => 0 }).next(3), new GatewayError("text", { status: 503, cause: 4 }));
