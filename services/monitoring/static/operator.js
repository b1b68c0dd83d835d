// What an operator may do: log in with the access token, and give commands, each after a question.

import { element, renew, setText } from "./elements.js";

const NAMES = {
  "sync": "Sync", "pause": "Pause", "resume": "Resume", "throttle": "Throttle…", "verify": "Verify",
  "select-target": "Select target", "select-source": "Select source", "commit": "Commit…", "abort": "Abort…", "cleanup": "Clean up…",
};
const MIB = 1024 * 1024;

export class Operator {
  constructor(store) {
    this.store = store;
    this.csrf = null;
    this.button = document.querySelector("#login");
    this.token = document.querySelector("#token");
    this.question = document.querySelector("#question");
    this.commands = document.querySelector(".commands");
    this.toast = document.querySelector("#toast");
    this.asked = "";
    this.button.addEventListener("click", () => (this.csrf ? this.#logOut() : this.token.showModal()));
    this.token.querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); this.#logIn(); });
    this.question.querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); this.#carryOut(); });
    for (const dialog of [this.token, this.question]) {
      dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
    }
  }

  async begin() {
    const told = await ask("/session");
    this.button.hidden = !told.offers_commands;
    this.#became(told.csrf);
  }

  #became(csrf) {
    this.csrf = csrf;
    this.asked = "";
    setText(this.button, csrf ? "Log out" : "Log in");
    this.update();
  }

  async #logIn() {
    const field = this.token.querySelector("input");
    const error = this.token.querySelector(".error");
    try {
      const told = await this.#post("/login", { token: field.value.trim() });
      field.value = "";
      setText(error, "");
      this.token.close();
      this.#became(told.csrf);
    } catch (failure) {
      setText(error, failure.message);
      field.select();
    }
  }

  async #logOut() {
    await this.#post("/logout", {}).catch(() => null);
    this.#became(null);
  }

  // Ask anew what is offered whenever something has changed on which that depends.
  async update() {
    const row = this.store.rows.get(this.store.selected);
    if (!this.csrf || !row) {
      this.commands.replaceChildren();
      delete this.commands.dataset.made;
      this.asked = "";
      return;
    }
    const told = this.store.detail;
    const about = JSON.stringify([row.name, row.state, row.attempt, row.paused, row.faults, row.trouble, told?.allowed]);
    if (about === this.asked) return;
    this.asked = about;
    try {
      const { commands } = await ask(`/migrations/${encodeURIComponent(row.name)}/offered`);
      if (this.store.selected !== row.name) return;
      renew(this.commands, [row.name, commands], () => commands.map((command) =>
        element("button", { type: "button", class: command === "commit" || command === "abort" || command === "cleanup" ? "final" : "quiet", data: { command }, onclick: () => this.#ask(command, row.name) }, NAMES[command])));
    } catch (failure) {
      this.asked = "";
      if (failure.status === 403) this.#became(null);
    }
  }

  async #ask(command, name) {
    try {
      const question = await ask(`/migrations/${encodeURIComponent(name)}/question/${command}`);
      this.current = { command, name, afterwards: question.afterwards };
      setText(this.question.querySelector("h2"), `${NAMES[command].replace("…", "")} ${name}?`);
      this.question.querySelector(".text").replaceChildren(...question.text.split("\n").map((line) => element("p", {}, line)));
      const options = question.options.map((option) => element("label", { class: "option" },
        element("input", { type: "checkbox", name: option.name, value: option.value }), ` ${option.text}`));
      if (command === "throttle") {
        options.push(element("label", {}, "MiB a second, empty for no limit ", element("input", { type: "number", name: "mib", min: "1", step: "any", inputmode: "decimal" })));
      }
      if (question.is_final) options.push(element("p", { class: "final-note" }, "This cannot be undone."));
      this.question.querySelector(".options").replaceChildren(...options);
      setText(this.question.querySelector(".error"), question.is_allowed ? "" : "It is not allowed in the present state.");
      const go = this.question.querySelector(".go");
      go.classList.toggle("final", question.is_final);
      go.disabled = false;
      setText(go, `${NAMES[command].replace("…", "")} ${name}`);
      this.question.showModal();
      this.question.querySelector(".cancel").focus();
    } catch (failure) {
      this.#say(failure.message, true);
    }
  }

  async #carryOut() {
    const { command, name, afterwards } = this.current;
    const options = {};
    for (const box of this.question.querySelectorAll("input[type=checkbox]:checked")) options[box.name] = box.value === "true";
    const mib = this.question.querySelector("input[name=mib]");
    if (mib) options.bytes_per_s = mib.value ? Math.round(Number(mib.value) * MIB) : null;
    const go = this.question.querySelector(".go");
    go.disabled = true;
    try {
      const reply = await this.#post(`/migrations/${encodeURIComponent(name)}/command/${command}`, options);
      this.question.close();
      const journal = reply.journal ? "" : " The journal does not hold it yet, and will follow.";
      this.#say(`${name}: ${reply.state ?? "cleaned up; the name is free"}.${journal} ${reply.message ?? ""} ${afterwards}`.trim(), false);
      this.asked = "";
    } catch (failure) {
      go.disabled = false;
      setText(this.question.querySelector(".error"), failure.message);
    }
  }

  #say(text, isFailure) {
    setText(this.toast, text);
    this.toast.classList.toggle("failure", isFailure);
    this.toast.classList.add("shown");
    clearTimeout(this.hiding);
    this.hiding = setTimeout(() => this.toast.classList.remove("shown"), 12000);
  }

  #post(path, body) {
    const headers = { "content-type": "application/json", "x-cutover-csrf": this.csrf ?? "" };
    return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("The monitoring service does not answer.");
  }
  const told = await answer.json();
  if (!answer.ok) {
    const failure = new Error(told.error?.message ?? "It was refused.");
    failure.status = answer.status;
    throw failure;
  }
  return told;
}
