// Aggregates of readings by interval, as usbgate makes them, and live readings added to them.

/** Group buckets by field, with times in ms. */
export function byField(buckets) {
  const found = new Map();
  for (const { field, at, min, avg, max, count } of buckets) {
    if (!found.has(field)) found.set(field, []);
    found.get(field).push({ at: Date.parse(at), min, avg, max, count });
  }
  return found;
}

/** Add a reading to buckets of `width` ms, and drop those that ended before `since`. */
export function addReading(buckets, width, at, value, since) {
  const begin = Math.floor(at / width) * width;
  const last = buckets.at(-1);
  if (last === undefined || begin > last.at) {
    buckets.push({ at: begin, min: value, avg: value, max: value, count: 1 });
  } else {
    const bucket = buckets.findLast((each) => each.at === begin);
    if (bucket === undefined) return; // older than all of them
    bucket.min = Math.min(bucket.min, value);
    bucket.max = Math.max(bucket.max, value);
    bucket.avg = (bucket.avg * bucket.count + value) / (bucket.count + 1);
    bucket.count += 1;
  }
  while (buckets.length && buckets[0].at + width < since) buckets.shift();
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
