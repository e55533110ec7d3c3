// Makes elements. Text becomes text nodes only, so that nothing a device sends can become markup.

import { kindIcon } from "./kinds.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: `el("a", {class: "back", href: "#/"}, "Back")`. A property that is a function is a listener for the
 * event of its name, true is an attribute without a value, and null, undefined or false are left out.
 */
export function el(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** Make an SVG element in the same way. */
export function svg(tag, properties = {}, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  const given = children.flat().filter((child) => child !== null && child !== undefined);
  node.append(...given.map((child) => (child instanceof Node ? child : visible(child))));
  return node;
}

/**
 * A text with characters that are not seen, or that turn the direction of writing, as escapes: an id that only looks
 * like another must not pass for it.
 */
export function visible(text) {
  return String(text).replace(
    /[\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Set styles; the Content Security Policy forbids the attribute. */
export function placed(node, styles) {
  Object.assign(node.style, styles);
  return node;
}

/** Set a text if it changed, so that screen readers and the layout notice changes only. */
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** Set an attribute if it changed; remove it for null or false. */
export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Make these the children, in this order. It moves as few as possible, so that focus and scroll position stay. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

/** A table in a region of its own that scrolls if it is too wide, also by keyboard. A cell is a text or a node. */
export function table(label, names, rows) {
  return el(
    "div",
    { class: "scroll", role: "region", "aria-label": label, tabindex: 0 },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, n) => el("td", { "data-label": names[n] }, cell))))),
    ),
  );
}

/** Make the icon of a kind of field; null if it has none. */
export function kindSign(kind) {
  const path = kindIcon(kind);
  return path && svg("svg", { class: "icon kind", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: path }));
}

// Each state has its own shape, for people who do not see the colour; so has each theme.
const SHAPES = {
  fresh: [["circle", { cx: 8, cy: 8, r: 4.5, class: "full" }]],
  stale: [["circle", { cx: 8, cy: 8, r: 5.5 }], ["path", { d: "M8 5v3.2l2.2 1.4" }]],
  asked: [["path", { d: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5", class: "turning" }]],
  failed: [["path", { d: "M4 4l8 8M12 4l-8 8" }]],
  offline: [["path", { d: "M3 8h3M10 8h3M6 4.5v7M10 4.5v7M2.5 13.5l11-11" }]],
  never: [["path", { d: "M4 8h8" }]],
  alarm: [["path", { d: "M8 2 14.5 13.5h-13z" }], ["path", { d: "M8 6.3v3.4M8 11.6v.2" }]],
  done: [["path", { d: "M3.5 8.5l3 3 6-7" }]],
  auto: [["circle", { cx: 8, cy: 8, r: 6 }], ["path", { d: "M8 2a6 6 0 0 1 0 12z", class: "full" }]],
  light: [["circle", { cx: 8, cy: 8, r: 3 }], ["path", { d: "M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1" }]],
  dark: [["path", { d: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z" }]],
  info: [["circle", { cx: 8, cy: 8, r: 6 }], ["path", { d: "M8 7.3v3.6M8 5v.2" }]],
};

/** Make the icon of a state or a theme. */
export function icon(name) {
  const shapes = SHAPES[name].map(([tag, properties]) => svg(tag, properties));
  return svg("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, shapes);
}
