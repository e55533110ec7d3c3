// What a person chose, for the next time; where the browser keeps nothing for us, until the page is closed.

/** What was chosen, if it is one of these. */
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
    // It is as the person wants it now.
  }
}
