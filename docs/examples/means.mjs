// Hourly means of the last day, of one or more sensors: node means.mjs [ADDRESS [SENSOR…]]

const [address = "http://127.0.0.1:8080", ...sensors] = process.argv.slice(2);
const query = new URLSearchParams({ since: "1d", bucket: "1h" });
for (const sensor of sensors.length ? sensors : ["20"]) query.append("sensor", sensor);

const response = await fetch(`${address}/api/v1/readings?${query}`);
const body = await response.json();
if (!response.ok) throw new Error(`${body.code}: ${body.detail}`);
for (const { at, sensor, field, min, avg, max } of body.buckets) {
    console.log(new Date(at).toISOString(), sensor, field, avg.toFixed(2), `(${min} to ${max})`);
}
