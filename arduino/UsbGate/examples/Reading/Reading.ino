// A thermometer, sensor 20, an LM35 on A0 (10 mV per °C): answers when it is asked, and reports by itself when the
// temperature has changed. And a water gauge, sensor 21, on A1, whose waves take a second to even out: what is answered
// later does not hold up anything else.
#include <UsbGate.h>

UsbGate gate(Serial);
float reported;

UsbGatePending gauge;  // the request for sensor 21, until it is answered
unsigned long since, sum, count;

float temperature() { return analogRead(A0) * (500.0 / 1024); }

void setup() {
  Serial.begin(9600);
  gate.on("J", [](UsbGateRequest &request) {
    if (request.isFor(20)) request.answer("TEMP", temperature());
    if (request.isFor(21) && !gauge && request.keep(gauge)) {
      since = millis();
      sum = count = 0;
    }
  });
}

void loop() {
  gate.poll();

  float now = temperature();
  if (fabs(now - reported) >= 1 && gate.reading(20, "TEMP", now)) reported = now;

  if (gauge) {
    sum += analogRead(A1);
    count++;
    if (millis() - since >= 1000) gate.answer(gauge, "LEVEL", sum / count);
  }
}
