// Aggregates of readings by interval, as usbgate makes them, and live readings added to them.

const GAP = 5; // times the usual distance between two intervals; a longer one is a gap, as in /api/v1/states

/** Group buckets by field, then by device, with times in ms. */
export function bySeries(buckets) {
  const found = new Map();
  for (const { field, device, at, min, avg, max, count } of buckets) {
    if (!found.has(field)) found.set(field, new Map());
    const devices = found.get(field);
    if (!devices.has(device)) devices.set(device, []);
    devices.get(device).push({ at: Date.parse(at), min, avg, max, count });
  }
  return found;
}

/**
 * Add a reading to buckets of `width` ms, and drop those that ended before `since`. One that is `repeated` may be in its
 * bucket already, and only widens it.
 */
export function addReading(buckets, width, at, value, since, repeated = false) {
  const begin = Math.floor(at / width) * width;
  const last = buckets.at(-1);
  if (last === undefined || begin > last.at) {
    buckets.push({ at: begin, min: value, avg: value, max: value, count: 1 });
  } else {
    const bucket = buckets.findLast((each) => each.at === begin);
    if (bucket === undefined) return; // older than all of them
    bucket.min = Math.min(bucket.min, value);
    bucket.max = Math.max(bucket.max, value);
    if (repeated) return;
    bucket.avg = (bucket.avg * bucket.count + value) / (bucket.count + 1);
    bucket.count += 1;
  }
  while (buckets.length && buckets[0].at + width < since) buckets.shift();
}

/** Split buckets where there are gaps: most distances are no longer than the usual one. */
export function withoutGaps(buckets) {
  const distances = buckets.slice(1).map((bucket, index) => bucket.at - buckets[index].at);
  const usual = [...distances].sort((a, b) => a - b)[Math.floor((distances.length - 1) * 0.75)];
  const parts = [];
  buckets.forEach((bucket, index) => {
    if (index === 0 || distances[index - 1] > GAP * usual) parts.push([]);
    parts.at(-1).push(bucket);
  });
  return parts;
}

/** The middle of a bucket, as far as it lies in a period; all in ms. A current bucket ends now. */
export function middle({ at }, width, from, to) {
  return (Math.max(at, from) + Math.min(at + width, to)) / 2;
}

/** The minimum, mean and maximum of buckets; null for none. */
export function summary(buckets) {
  let [min, max, sum, count] = [Infinity, -Infinity, 0, 0];
  for (const bucket of buckets) {
    min = Math.min(min, bucket.min);
    max = Math.max(max, bucket.max);
    sum += bucket.avg * bucket.count;
    count += bucket.count;
  }
  return count ? { min, max, avg: sum / count } : null;
}
