// Evaluated in Node.js and in pages: follows with callbacks, and keeps what they were called with.
() => {
  // As JSON has it: bytes as a list.
  globalThis.plain = (event) =>
    event.payload instanceof Uint8Array ? { ...event, payload: [...event.payload] } : event;

  globalThis.told = (error) => ({
    name: error.name,
    message: error.message,
    status: error.status,
    code: error.code,
    uncertain: error.uncertain,
    temporary: error.temporary,
  });

  globalThis.record = ({ topics, url, token, timing, buffer }) => {
    globalThis.gateway = new Gateway(url, { token, timing });
    globalThis.events = [];
    globalThis.states = [];
    globalThis.errors = [];
    globalThis.feed = gateway.follow(topics, {
      buffer,
      onEvent: (event) => void events.push(plain(event)),
      onState: (state, { error, delay }) => void states.push({ state, delay, error: error && told(error) }),
      onError: (error) => void errors.push(told(error)),
    });
  };
};
