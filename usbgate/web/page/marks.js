// The times when the condition of an alarm held, with a flag at the beginning of each; the same in lines and bars.

import { el, icon, placed } from "./dom.js";
import { isLong, moment } from "./format.js";

const FLAG = { short: 64, long: 120 }; // px that a flag takes with its time, and with its day as well

/**
 * Make the marks of [from, to] spans, in ms and in order, that lie within a period. `x` makes a place in px of a time,
 * and `width` is the place of the period's end.
 */
export function marks(spans, [from, to], x, width) {
  const room = isLong(to - from) ? FLAG.long : FLAG.short;
  const found = [];
  // Spans that touch on the screen are one, so that there are never more than fit.
  for (const [since, until] of spans.filter(([begin, end]) => end >= from && begin <= to)) {
    const left = Math.min(x(Math.max(since, from)), width - 2);
    const right = Math.max(x(Math.min(until, to)), left + 2);
    const last = found.at(-1);
    if (last && left - last.right < 2) last.right = Math.max(last.right, right);
    else found.push({ left, right, since });
  }
  // The newest has its time, and of the others those that have room. At the right end, it stands before its flag.
  let free = Infinity;
  const nodes = found.toReversed().map(({ left, right, since }) => {
    const flag = since < from ? null : el("span", { class: "flag" }, icon("alarm"));
    const before = left + room > width;
    const [begin, end] = before ? [left - room, left] : [left, left + room];
    if (flag && end <= free) {
      flag.append(moment(since, to - from));
      free = begin;
    }
    flag?.classList.toggle("before", before);
    return placed(el("div", { class: "held" }, flag), { left: `${left}px`, width: `${right - left}px` });
  });
  return nodes.reverse();
}
