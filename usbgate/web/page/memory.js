// Choices that are kept in the browser; if it keeps nothing for us, they last until the page is closed.

/** The text that was kept; null if there is none. */
export function kept(name) {
  try {
    return localStorage.getItem(`usbgate.${name}`);
  } catch {
    return null;
  }
}

/** The choice that was kept; null if there is none among these. */
export function choice(name, among) {
  const found = kept(name);
  return among.includes(found) ? found : null;
}

export function remember(name, value) {
  try {
    localStorage.setItem(`usbgate.${name}`, value);
  } catch {
    // The choice applies until the page is closed.
  }
}

/** The list of texts that was kept; empty if there is none. */
export function keptList(name) {
  try {
    return JSON.parse(kept(name) ?? "[]");
  } catch {
    return [];
  }
}
