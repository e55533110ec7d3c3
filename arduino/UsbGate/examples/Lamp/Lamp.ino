// A lamp, sensor 9, on pin 9: ON, OFF, and L with LEVEL=0 to 100; J asks for its level. A button from pin 2 to ground
// switches it by hand, which is reported.
#include <UsbGate.h>

const int LAMP = 9;
const int BUTTON = 2;

UsbGate gate(Serial);
int level;
bool changed;  // by the button, and not yet reported
bool pressed;
unsigned long pressedAt;

void shine(long percent) {
  level = constrain(percent, 0, 100);
  analogWrite(LAMP, level * 255L / 100);
}

void setup() {
  Serial.begin(9600);
  pinMode(LAMP, OUTPUT);
  pinMode(BUTTON, INPUT_PULLUP);
  gate.on("ON", [](UsbGateRequest &request) {
    if (!request.isFor(9)) return;
    shine(100);
    request.answer();
  });
  gate.on("OFF", [](UsbGateRequest &request) {
    if (!request.isFor(9)) return;
    shine(0);
    request.answer();
  });
  gate.on("L", [](UsbGateRequest &request) {
    if (!request.isFor(9)) return;
    shine(request.number("LEVEL", level));
    request.answer("LEVEL", level);
  });
  gate.on("J", [](UsbGateRequest &request) {
    if (request.isFor(9)) request.answer("LEVEL", level);
  });
}

void loop() {
  gate.poll();
  bool now = digitalRead(BUTTON) == LOW;
  if (now != pressed && millis() - pressedAt >= 20) {  // a button bounces
    pressed = now;
    pressedAt = millis();
    if (pressed) {
      shine(level ? 0 : 100);
      changed = true;
    }
  }
  if (changed && gate.reading(9, "LEVEL", level)) changed = false;
}
