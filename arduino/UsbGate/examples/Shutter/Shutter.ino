// A shutter, sensor 12, with a relay for each direction on pins 4 and 5: UP, DOWN, STOP, and P with POSITION=0 (closed)
// to 100 (open). Each is acknowledged at once, so that the next one need not wait; the shutter reports its position when
// it stands still. J asks for the position.
#include <UsbGate.h>

const int UP = 4;
const int DOWN = 5;
const unsigned long TRAVEL = 20000;  // ms from one end to the other

UsbGate gate(Serial);
int position;  // estimated by time; nothing is known of it at power-up
int target;
bool moved;  // and not yet reported
unsigned long stepAt;

// Never both relays at once.
void drive() {
  if (target <= position) digitalWrite(UP, LOW);
  if (target >= position) digitalWrite(DOWN, LOW);
  if (target > position) digitalWrite(UP, HIGH);
  if (target < position) digitalWrite(DOWN, HIGH);
}

void go(UsbGateRequest &request, long to) {
  if (!request.isFor(12)) return;
  target = constrain(to, 0, 100);
  stepAt = millis();
  moved = true;
  drive();
  request.answer();
}

void setup() {
  Serial.begin(9600);
  pinMode(UP, OUTPUT);
  pinMode(DOWN, OUTPUT);
  gate.on("UP", [](UsbGateRequest &request) { go(request, 100); });
  gate.on("DOWN", [](UsbGateRequest &request) { go(request, 0); });
  gate.on("STOP", [](UsbGateRequest &request) { go(request, position); });
  gate.on("P", [](UsbGateRequest &request) { go(request, request.number("POSITION", position)); });
  gate.on("J", [](UsbGateRequest &request) {
    if (request.isFor(12)) request.answer("POSITION", position);
  });
}

void loop() {
  gate.poll();
  if (position != target && millis() - stepAt >= TRAVEL / 100) {
    stepAt += TRAVEL / 100;
    position += target > position ? 1 : -1;
    drive();
  }
  if (position == target && moved) moved = !gate.reading(12, "POSITION", position);
}
