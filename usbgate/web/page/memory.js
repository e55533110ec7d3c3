// Choices that are kept in the browser; if it keeps nothing for us, they last until the page is closed.

/** The choice that was kept; null if there is none among these. */
export function choice(name, among) {
  try {
    const found = localStorage.getItem(`usbgate.${name}`);
    return among.includes(found) ? found : null;
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`usbgate.${name}`, value);
  } catch {
    // The choice applies until the page is closed.
  }
}
