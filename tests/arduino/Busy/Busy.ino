// A sketch as one should not write it: when something arrives, it does not read for 100 ms. 96 bytes can arrive in that
// time, and the chip's buffer holds 63. The time runs from the first byte, so that of two questions always the second one
// is torn. If the sketch waited in each turn, that would depend on the moment; and because what is not answered is asked
// again after 5 s, 50 turns later, it would do so in the same way each time.
#include <UsbGate.h>

UsbGate gate(Serial);

void setup() {
  Serial.begin(9600);
  gate.useChecksum();
  gate.on("J", [](UsbGateRequest &request) { request.answer("IS", request.id(), "REFUSED", gate.refused()); });
}

void loop() {
  if (Serial.available()) delay(100);
  gate.poll();
}
