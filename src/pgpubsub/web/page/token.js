/** The token: kept for this tab, and never in the address. */

import { element } from "./words.js";

const KEY = `pgpubsub token ${new URL(".", location.href).pathname}`;

export class Token {
  text = "";
  #dialog = document.getElementById("token");
  #field = document.getElementById("token-text");
  #says = document.getElementById("token-says");
  #opener = document.getElementById("token-open");
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    try {
      this.text = sessionStorage.getItem(KEY) ?? "";
    } catch {} // where nothing may be kept
    this.#opener.addEventListener("click", () => this.#open());
    this.#field.addEventListener("input", () => this.#describe());
    document.getElementById("token-close").addEventListener("click", () => this.#dialog.close());
    document.getElementById("token-forget").addEventListener("click", () => this.#use(""));
    document.getElementById("token-form").addEventListener("submit", () => this.#use(this.#field.value.trim()));
    this.#label();
  }

  /** Why one is needed. */
  needed(why) {
    this.#says.textContent = why;
  }

  #open() {
    this.#field.value = this.text;
    if (this.text) this.#describe();
    this.#dialog.showModal();
    this.#field.select();
  }

  #use(text) {
    this.text = text;
    try {
      if (text) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {}
    this.#dialog.close();
    this.#says.textContent = "";
    this.#label();
    this.#onChange();
  }

  #label() {
    this.#opener.replaceChildren("Token", element("span", "wide", this.text ? " in use" : ""));
  }

  /** What the token says of itself, which the gateway may see otherwise. */
  #describe() {
    const claims = decoded(this.#field.value.trim());
    if (claims === null) {
      this.#says.textContent = this.#field.value.trim() ? "This does not look like a token." : "";
      return;
    }
    const { read = [], write = [] } = claims.pgpubsub ?? {};
    const ends = Number.isFinite(claims.exp) ? `until ${new Date(claims.exp * 1000).toLocaleString("en-GB")}` : "without an end";
    const listed = (what) => ([].concat(what).join(", ") || "nothing").slice(0, 200);
    this.#says.textContent = `Reads ${listed(read)}; writes ${listed(write)}; ${ends}.`;
  }
}

function decoded(token) {
  try {
    const middle = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(middle), (character) => character.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === "object" ? claims : null;
  } catch {
    return null;
  }
}
