// A sketch as one should not write it: while its loop waits, 96 bytes can arrive, and the chip's buffer holds 63.
#include <UsbGate.h>

UsbGate gate(Serial);

void setup() {
  Serial.begin(9600);
  gate.useChecksum();
  gate.on("J", [](UsbGateRequest &request) { request.answer("IS", request.id(), "REFUSED", gate.refused()); });
}

void loop() {
  gate.poll();
  delay(100);
}
