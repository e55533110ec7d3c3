// The smallest sketch for usbgate: sensor "20" on pin A0, lamp "9" on pin 13.
String line;

void setup() {
  Serial.begin(9600);
  pinMode(13, OUTPUT);
}

void loop() {
  if (!Serial.available()) return;
  char c = Serial.read();
  if (c != '\n') { if (line.length() < 200) line += c; return; }
  line = "_" + line + "_";  // so that every field has a _ on both sides
  bool on = line.indexOf("_MSG:ON_") >= 0, off = line.indexOf("_MSG:OFF_") >= 0;
  if (line.indexOf("_ID:20_") >= 0 && line.indexOf("_MSG:J_") >= 0)
    Serial.println("ID:20_VALUE:" + String(analogRead(A0)) + "_MSG:J");
  if (line.indexOf("_ID:9_") >= 0 && (on || off)) {
    digitalWrite(13, on);
    Serial.println(on ? "ID:9_MSG:ON" : "ID:9_MSG:OFF");
  }
  line = "";
}
