// The smallest device that speaks usbgate's field lines: a sensor "20" on A0, and a lamp "9" on pin 13.
String line;

void setup() {
  Serial.begin(9600);
  pinMode(13, OUTPUT);
  Serial.println("# example is up");
}

void loop() {
  while (Serial.available()) {
    char c = Serial.read();
    if (c != '\n') { if (line.length() < 200) line += c; continue; }
    bool on = line.startsWith("MSG:ON_"), off = line.startsWith("MSG:OFF_");
    if (line.indexOf("_ID:20_") >= 0 && line.startsWith("MSG:J_"))
      Serial.println("ID:20_VALUE:" + String(analogRead(A0)) + "_MSG:J");
    if (line.indexOf("_ID:9_") >= 0 && (on || off)) {
      digitalWrite(13, on);
      Serial.println(String("ID:9_MSG:") + (on ? "ON" : "OFF"));
    }
    line = "";
  }
}
