/** The form that sends: on a channel, or to a stream. */

import { clock, short } from "./words.js";

export class Sending {
  #gateway;
  #form = document.getElementById("send");
  #kind = document.getElementById("send-kind");
  #name = document.getElementById("send-name");
  #key = document.getElementById("send-key");
  #payload = document.getElementById("send-payload");
  #outcome = document.getElementById("send-outcome");
  #button = this.#form.querySelector("button[type=submit]");
  #busy = false;

  /** `gateway` gives one with the token of the moment. */
  constructor(gateway) {
    this.#gateway = gateway;
  }

  begin() {
    const keyed = () => (document.getElementById("send-key-field").hidden = this.#kind.value !== "stream");
    this.#kind.addEventListener("change", keyed);
    keyed(); // a browser may have kept what was chosen before
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#payload.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
  }

  async #send() {
    if (this.#busy) return;
    this.#busy = true;
    this.#button.setAttribute("aria-disabled", "true");
    this.#say("", "Sending.");
    const name = this.#name.value;
    try {
      if (this.#kind.value === "channel") {
        await this.#gateway().notify(name, this.#payload.value);
        this.#say("good", `Sent on ${short(name, 60)} at ${clock()}.`);
      } else {
        const id = await this.#gateway().append(name, this.#payload.value, { key: this.#key.value || null });
        this.#say("good", `Stored in ${short(name, 60)} as entry ${id}.`);
      }
    } catch (error) {
      this.#say("bad", `${error.uncertain ? "Perhaps not sent" : "Not sent"}: ${why(error)}.`);
    } finally {
      this.#busy = false;
      this.#button.removeAttribute("aria-disabled");
    }
  }

  #say(state, text) {
    this.#outcome.dataset.state = state;
    this.#outcome.textContent = text;
  }
}

function why(error) {
  if (error.code === "unauthorized") return "this takes a token, for which there is a button at the top";
  return error.code ? `${error.message} (${error.status || ""} ${error.code})`.replace("( ", "(") : error.message;
}
