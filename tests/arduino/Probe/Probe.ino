// Shows what UsbGate makes of lines, at a speed at which a test need not wait for it.
#include <UsbGate.h>

SizedUsbGate<64, 100, 6> gate(Serial);
UsbGatePending first, second;

void setup() {
  Serial.begin(115200);
  gate.on("J", [](UsbGateRequest &request) { request.answer(); });
  gate.on("L", [](UsbGateRequest &request) {
    const char *name = request.argument("NAME");
    bool own = request.isFor(9) && request.isFor(9U) && request.isFor(9L) && request.isFor(9UL);
    request.answer("LEVEL", request.number("LEVEL", -1), "NAME", name ? name : "none", "OWN", own);
  });
  gate.on("TWO", [](UsbGateRequest &request) {
    if (!request.keep(first ? second : first)) request.answer("LONG", 1);
    if (second && gate.answer(second, F("TURN"), 2)) gate.answer(first, F("TURN"), 1);
  });
  gate.on("MANY", [](UsbGateRequest &request) {
    int taken = 0;
    for (int i = 0; i < 20; i++) taken += gate.reading("28:FF", "TEMP", UsbGateDecimals(21.537, 3), "N", i);
    while (!request.answer("TAKEN", taken, "LOST", gate.lost())) gate.poll();
  });
  gate.on("CHECK", [](UsbGateRequest &request) {
    gate.useChecksum();
    char longest[98] = "two\nwords\x7f";
    memset(longest + 10, 'x', 87);
    gate.text(longest);
    while (!request.answer("REFUSED", gate.refused())) gate.poll();
  });
  gate.on([](UsbGateRequest &request) { request.relay(Serial); });
  // There is room for six.
  if (gate.on("MORE", nullptr)) gate.text(F("seven"));
}

void loop() { gate.poll(); }
