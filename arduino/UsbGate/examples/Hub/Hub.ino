// A hub for radio nodes, behind a radio that is a serial line itself, such as HC-12 or JDY-40: on Serial1 where the
// board has one besides the port to the computer, else on pins 10 (RX) and 11 (TX).
//
// Nodes use UsbGate as well: `UsbGate gate(radio)` and `gate.useChecksum()`. The hub passes their lines on, whole, with
// their checksums, which usbgate checks; and to the nodes whatever is not for itself. Set `checksum = true` and
// `tags = true` for the device. For a radio with a driver of its own (RF24, RadioHead), put gate.reading(node, "TEMP",
// value) where a packet is received.
#include <UsbGate.h>

#ifdef HAVE_HWSERIAL1
HardwareSerial &radio = Serial1;
#else
#include <SoftwareSerial.h>
SoftwareSerial radio(10, 11);
#endif

UsbGate gate(Serial);
char heard[80];      // a line from a node
uint8_t length = 0;  // sizeof heard: it is too long
bool whole = false;

void listen() {
  while (!whole && radio.available()) {
    char c = radio.read();
    if (c != '\n' && c != '\r') {
      if (length < sizeof heard) heard[length++] = c;
      continue;
    }
    if (length < sizeof heard) {
      heard[length] = 0;
      whole = !strncmp(heard, "ID:", 3);
    }
    length = 0;
  }
  if (whole && gate.relay(heard)) whole = false;
}

void setup() {
  Serial.begin(9600);
  radio.begin(9600);
  gate.useChecksum();
  gate.on("J", [](UsbGateRequest &request) {
    if (request.isFor("hub"))
      request.answer("UPTIME", millis() / 1000);
    else
      request.relay(radio);
  });
  gate.on([](UsbGateRequest &request) { request.relay(radio); });
}

void loop() {
  gate.poll();
  listen();
}
