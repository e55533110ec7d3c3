// UsbGate: the device's side of usbgate's line protocol (section 2 of docs/protocol.md).
//
//     UsbGate gate(Serial);
//
//     void setup() {
//       Serial.begin(9600);
//       gate.on("J", [](UsbGateRequest &request) {
//         if (request.isFor(20)) request.answer("TEMP", 21.5);
//       });
//     }
//
//     void loop() { gate.poll(); }
//
// Nothing here waits, and nothing is allocated: a line that does not fit into the output buffer is not sent at all, and
// the call that made it returns false. Do not print to the same stream by other means, or lines get mixed: use text().

#ifndef USBGATE_H
#define USBGATE_H

#include <Arduino.h>

class UsbGateBase;
class UsbGatePending;

// A number with a given number of decimals; without it, two are sent: UsbGateDecimals(21.537, 3).
class UsbGateDecimals : public Printable {
 public:
  UsbGateDecimals(double value, uint8_t decimals) : _value(value), _decimals(decimals) {}
  size_t printTo(Print &to) const { return to.print(_value, (int)_decimals); }

 private:
  double _value;
  uint8_t _decimals;
};

// A request from usbgate, such as MSG:L_ID:9_LEVEL:50. Its texts are gone when the handler returns: keep() what is
// answered later.
class UsbGateRequest {
 public:
  const char *id() const { return argument("ID"); }
  const char *command() const { return argument("MSG"); }

  // Whether it asks this sensor. "20" is not "020".
  bool isFor(const char *id) const { return !strcmp(this->id(), id); }
  bool isFor(unsigned long id) const;
  bool isFor(long id) const { return isFor((unsigned long)id); }
  bool isFor(unsigned id) const { return isFor((unsigned long)id); }
  bool isFor(int id) const { return isFor((unsigned long)id); }

  // The value of an argument; a null pointer if the request has none of this name.
  const char *argument(const char *key) const;

  // The value of an argument that is a whole number; `otherwise` if there is none, or if it is no such
  // number, or too large for a long.
  long number(const char *key, long otherwise) const;

  // Answer with measurements, each a name and a value: answer("TEMP", 21.5, "HUM", 48). Without any, acknowledge.
  // Returns false if there is no room in the output buffer.
  template <typename... Pairs>
  bool answer(Pairs... pairs);

  // Keep what is needed to answer later; false if the id, the command and the tag are too long together.
  bool keep(UsbGatePending &pending) const;

  // Write it to another stream, such as a radio, as a line that UsbGate understands at the other end.
  void relay(Print &to) const;

 private:
  friend class UsbGateBase;
  UsbGateRequest(UsbGateBase &gate, const char *fields, const char *end) : _gate(gate), _fields(fields), _end(end) {}
  UsbGateBase &_gate;
  const char *_fields;  // KEY:VALUE, each ended by NUL
  const char *_end;
};

// A question that is to be answered later, by UsbGate::answer().
class UsbGatePending {
 public:
  UsbGatePending() { _texts[0] = 0; }
  explicit operator bool() const { return _texts[0]; }  // whether it waits for an answer
  void forget() { _texts[0] = 0; }

 private:
  friend class UsbGateBase;
  friend class UsbGateRequest;
  char _texts[32];  // the id, the command and the tag, each ended by NUL
};

// What UsbGate does, whatever the sizes of its buffers.
class UsbGateBase : private Print {
 public:
  typedef void (*Handler)(UsbGateRequest &request);

  // Send a checksum with each line, and refuse requests without: set `checksum = true` in the device's table, too.
  void useChecksum() { _checksum = true; }

  // Call a handler for each request with this command, in upper case. The text must stay where it is. Returns false if
  // there are too many handlers.
  bool on(const char *command, Handler handler);

  // Call a handler for each request whose command has none.
  bool on(Handler handler) { return on(nullptr, handler); }

  // Receive and send what can be without waiting. Call it again and again; it calls at most one handler. In
  // a handler, it only sends.
  void poll();

  // Send measurements that nobody asked for, each a name and a value: reading(22, "TEMP", 21.5, "HUM", 48).
  template <typename Id, typename... Pairs>
  bool reading(Id id, Pairs... pairs) {
    static_assert(sizeof...(pairs) > 0, "a reading needs a name and a value");
    open(id);
    add(pairs...);
    return close();
  }

  // Answer what was kept. It is forgotten, unless there is no room in the output buffer.
  template <typename... Pairs>
  bool answer(UsbGatePending &pending, Pairs... pairs) {
    if (!pending) return false;
    const char *command = pending._texts + strlen(pending._texts) + 1;
    const char *tag = command + strlen(command) + 1;
    if (!answer(pending._texts, command, tag, pairs...)) return false;
    pending.forget();
    return true;
  }

  // Send a text for usbgate's log.
  template <typename Text>
  bool text(Text text) {
    start();
    put('#');
    put(' ');
    print(text);
    return end();
  }

  // Send a line as it is, such as one that a radio has received.
  bool relay(const char *line) {
    start();
    print(line);
    return end();
  }

  uint16_t lost() const { return _lost; }        // lines that were not sent, since the output buffer was full
  uint16_t refused() const { return _refused; }  // received lines that were no requests, too long or damaged

 protected:
  struct Entry {
    const char *command;
    Handler handler;
  };

  UsbGateBase(Stream &stream, char *in, uint8_t inSize, char *out, uint8_t outSize, Entry *entries, uint8_t size);

 private:
  friend class UsbGateRequest;

  template <typename... Pairs>
  bool answer(const char *id, const char *command, const char *tag, Pairs... pairs) {
    open(id);
    add(pairs...);
    return close(command, tag);
  }

  template <typename Id>
  void open(Id id) {
    start();
    print(F("ID:"));
    print(id);
  }

  void add() {}

  template <typename Key, typename Value, typename... Rest>
  void add(Key key, Value value, Rest... rest) {
    put('_');
    print(key);
    put(':');
    print(value);
    add(rest...);
  }

  size_t write(uint8_t c) override;
  using Print::write;

  void start();
  void put(char c);
  bool close(const char *command = nullptr, const char *tag = nullptr);
  bool end();
  void send();
  bool receive(char c);
  void endSegment();
  void endKey();
  void store(char c);
  bool isWhole();
  void call();

  Stream &_stream;
  Entry *const _entries;
  char *const _in;
  char *const _out;
  const uint8_t _inSize, _outSize, _entriesSize;
  uint8_t _entriesCount = 0;
  bool _checksum = false;

  // Output: a ring.
  uint8_t _first = 0;      // the next byte to send
  uint8_t _last = 0;       // behind the last whole line
  uint8_t _draft = 0;      // behind what there is of the next line
  uint8_t _sum = 0;        // of the next line
  bool _full = false;      // the next line does not fit
  bool _buffered = false;  // the stream can say how much it takes without waiting
  uint16_t _lost = 0;

  // Input: a line. NUL stands for the _ before a field; ORIGIN is left out, however long it is.
  uint8_t _length = 0;
  uint8_t _segment = 0;     // where the text behind the last _ starts
  uint8_t _origin = 0;      // where ORIGIN was left out
  bool _hasKey = false;     // the text behind the last _ has a key
  bool _hasOrigin = false;  // the line has an ORIGIN
  bool _inOrigin = false;   // which is the last field so far
  bool _damaged = false;    // a control character, or too long
  enum : uint8_t { NONE, WAITS, CALLED } _request = NONE;  // of the line: it is none, or waits for its handler
  uint8_t _inSum = 0;
  char _ending[3] = {};  // the last three bytes
  uint16_t _refused = 0;
};

// A gate with buffers of these sizes: the longest request without its ORIGIN, below 248; what waits to be sent, which
// is also the longest line with its end, below 255; and the number of handlers.
template <uint8_t IN, uint8_t OUT, uint8_t HANDLERS>
class SizedUsbGate : public UsbGateBase {
  static_assert(IN < 248 && OUT < 255, "the buffers are too large");

 public:
  explicit SizedUsbGate(Stream &stream)
      : UsbGateBase(stream, _inBuffer, sizeof _inBuffer, _outBuffer, sizeof _outBuffer, _table, HANDLERS) {}

 private:
  char _inBuffer[IN + 8];    // and _ORIGIN, until that is known to be no part of it, or the checksum; and NUL
  char _outBuffer[OUT + 1];  // a ring that is full has one byte left
  Entry _table[HANDLERS];
};

typedef SizedUsbGate<64, 128, 6> UsbGate;

template <typename... Pairs>
bool UsbGateRequest::answer(Pairs... pairs) {
  return _gate.answer(id(), command(), argument("TAG"), pairs...);
}

#endif
