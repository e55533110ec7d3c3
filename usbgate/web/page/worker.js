// Keeps the files of the page, so that it opens while usbgate is away, and says so. It keeps no readings, and prefers
// what usbgate sends: an update is seen at once.

const FILES = "files";
const NOT_FILES = /^(api\/|healthz|metrics)/;

/** Whether an address is that of a file of the page. */
function isFile(address) {
  const { scope } = self.registration;
  return address.startsWith(scope) && !NOT_FILES.test(address.slice(scope.length));
}

async function fetchFile(request) {
  const files = await caches.open(FILES);
  const kept = () => files.match(request, { ignoreSearch: true });
  try {
    const response = await fetch(request);
    if (response.ok) await files.put(request, response.clone());
    // An error page of a proxy whose usbgate is away.
    return response.status >= 500 ? ((await kept()) ?? response) : response;
  } catch (error) {
    const found = await kept();
    if (found) return found;
    throw error;
  }
}

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && isFile(event.request.url)) event.respondWith(fetchFile(event.request));
});
self.addEventListener("message", (event) => {
  event.waitUntil(caches.open(FILES).then((files) => files.addAll(event.data.filter(isFile))));
});
