// Who uses the page: nothing is shown to somebody who may see nothing, but a form for a token. Who may see, but not do
// all that others may, finds it in a view of its own.

import { get, post } from "./api.js";
import { el, setText } from "./dom.js";
import { problemText, t } from "./words.js";

export const LOGIN = "#/login"; // the address of its view

/** Who uses the page: `{role, name, open}`; null if usbgate is unreachable, so that nobody knows. */
export async function session() {
  try {
    return await get("session");
  } catch {
    return null;
  }
}

/** A form that logs in, and then loads the page again; `help` is the key of what it says. */
export function loginForm(help = "login.help") {
  const token = el("input", { type: "password", id: "token", required: true, autocomplete: "current-password" });
  const failed = el("p", { class: "problem", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post("login", { token: token.value.trim() });
      if (location.hash === LOGIN) location.hash = "#/";
      location.reload();
    } catch (problem) {
      setText(failed, problem.code === "denied" ? t("login.wrong") : problemText(problem));
      token.select();
    }
  };
  return el(
    "form",
    { class: "login", submit },
    el("h1", { tabindex: -1 }, t("login")),
    el("p", {}, t(help)),
    el("label", { for: "token" }, t("login.token")),
    token,
    el("button", { type: "submit" }, t("login")),
    failed,
  );
}

/** The view of the form. */
export class LoginView {
  constructor() {
    this.node = loginForm("login.more");
  }

  get title() {
    return `${t("login")} · usbgate`;
  }

  update() {}

  tick() {}

  close() {}
}

/** Log out, and load the page again. */
export async function logOut() {
  await post("logout", {});
  location.reload();
}
