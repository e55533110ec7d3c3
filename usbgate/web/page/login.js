// Who uses the page: nothing is shown to somebody who may see nothing, but a form for a token.

import { get, post } from "./api.js";
import { el, setText } from "./dom.js";
import { problemText, t } from "./words.js";

/** Who uses the page: `{role, name, open}`; null if usbgate is unreachable, so that nobody knows. */
export async function session() {
  try {
    return await get("session");
  } catch {
    return null;
  }
}

/** A form that logs in, and then loads the page again. */
export function loginForm() {
  const token = el("input", { type: "password", id: "token", required: true, autocomplete: "current-password" });
  const failed = el("p", { class: "problem", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post("login", { token: token.value.trim() });
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
    el("p", {}, t("login.help")),
    el("label", { for: "token" }, t("login.token")),
    token,
    el("button", { type: "submit" }, t("login")),
    failed,
  );
}

/** Log out, and load the page again. */
export async function logOut() {
  await post("logout", {});
  location.reload();
}
