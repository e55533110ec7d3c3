#include "UsbGate.h"

#include <limits.h>

// "Cancel": what precedes it is in error. usbgate leaves out the field that it ends, so that the half of a line that a
// reset cut off (ID:20_VALUE:4 of 456) is not taken for a whole one. Alone on a line, it is ignored.
static const char CANCEL = 0x18;

static char hexDigit(uint8_t number) { return number + (number < 10 ? '0' : 'A' - 10); }

static const char *nextField(const char *field) { return field + strlen(field) + 1; }

static void printChecksum(Print &to, uint8_t sum) {
  to.write('*');
  to.write(hexDigit(sum >> 4));
  to.write(hexDigit(sum & 15));
}

// Writes to another Print, and sums up.
class Summing : public Print {
 public:
  explicit Summing(Print &to) : sum(0), _to(to) {}
  size_t write(uint8_t c) override {
    sum ^= c;
    return _to.write(c);
  }
  using Print::write;
  uint8_t sum;

 private:
  Print &_to;
};

bool UsbGateRequest::isFor(unsigned long id) const {
  const char *text = this->id(), *end = text + strlen(text);
  do {
    if (end == text || *--end != (char)('0' + id % 10)) return false;
    id /= 10;
  } while (id);
  return end == text;
}

const char *UsbGateRequest::argument(const char *key) const {
  size_t length = strlen(key);
  for (const char *field = _fields; field < _end; field = nextField(field))
    if (!strncmp(field, key, length) && field[length] == ':') return field + length + 1;
  return nullptr;
}

long UsbGateRequest::number(const char *key, long otherwise) const {
  const char *text = argument(key);
  if (!text) return otherwise;
  bool negative = *text == '-';
  if (negative) text++;
  long value = 0;
  do {
    if (*text < '0' || *text > '9' || value > (LONG_MAX - (*text - '0')) / 10) return otherwise;
    value = value * 10 + (*text - '0');
  } while (*++text);
  return negative ? -value : value;
}

bool UsbGateRequest::keep(UsbGatePending &pending) const {
  const char *tag = argument("TAG");
  const char *texts[] = {id(), command(), tag ? tag : ""};
  size_t length = 0;
  for (const char *text : texts) length += strlen(text) + 1;
  if (length > sizeof pending._texts) return false;
  char *to = pending._texts;
  for (const char *text : texts) {
    strcpy(to, text);
    to += strlen(text) + 1;
  }
  return true;
}

void UsbGateRequest::relay(Print &to) const {
  Summing line(to);
  for (const char *field = _fields; field < _end; field = nextField(field)) {
    line.print(field);
    line.write('_');
  }
  line.print(F("ORIGIN:hub"));  // without an ORIGIN it would be no request
  printChecksum(to, line.sum);
  to.write('\n');
}

UsbGateBase::UsbGateBase(Stream &stream, char *in, uint8_t inSize, char *out, uint8_t outSize, Entry *entries,
                         uint8_t size)
    : _stream(stream), _entries(entries), _in(in), _out(out), _inSize(inSize), _outSize(outSize), _entriesSize(size) {
  // Only into the buffer: the stream may not be constructed yet.
  put(CANCEL);
  put('\n');
  print(F("# UsbGate started"));
  put('\n');
  _last = _draft;
}

bool UsbGateBase::on(const char *command, Handler handler) {
  if (_entriesCount == _entriesSize) return false;
  _entries[_entriesCount].command = command;
  _entries[_entriesCount++].handler = handler;
  return true;
}

void UsbGateBase::poll() {
  send();
  // A stream that is always full must not hold up the sketch.
  for (uint8_t i = 0; i < 255 && _request == NONE && _stream.available() > 0; i++)
    if (receive(_stream.read())) _request = WAITS;
  // Not before there is room for its answer.
  if (_request == WAITS && _first == _last) call();
  send();
}

// Output

void UsbGateBase::send() {
  int room = _stream.availableForWrite();
  if (room > 0)
    _buffered = true;
  else if (!_buffered)
    room = 1;  // a stream without a buffer, such as SoftwareSerial, says 0 always
  for (; room > 0 && _first != _last; room--) {
    _stream.write((uint8_t)_out[_first]);
    if (++_first == _outSize) _first = 0;
  }
}

void UsbGateBase::start() {
  send();
  _draft = _last;
  _sum = 0;
  _full = false;
}

void UsbGateBase::put(char c) {
  uint8_t next = _draft + 1 == _outSize ? 0 : _draft + 1;
  if (next == _first) {
    _full = true;
    return;
  }
  _out[_draft] = c;
  _draft = next;
  _sum ^= c;
}

size_t UsbGateBase::write(uint8_t c) {
  // A control character, such as a line end in a text from elsewhere, would break the line or cost its field.
  put(c < ' ' || c == 0x7F ? ' ' : c);
  return 1;
}

bool UsbGateBase::close(const char *command, const char *tag) {
  if (command) {
    print(F("_MSG:"));
    print(command);
  }
  if (tag && *tag) {
    print(F("_TAG:"));
    print(tag);
  }
  if (_checksum) printChecksum(*this, _sum);
  return end();
}

bool UsbGateBase::end() {
  put('\n');
  if (_full) {
    _lost++;
    return false;
  }
  _last = _draft;
  return true;
}

// Input

// Take a byte; return whether it ends a request.
bool UsbGateBase::receive(char c) {
  if (c == '\n' || c == '\r') {
    bool empty = !_length && !_hasOrigin && !_damaged, whole = !empty && isWhole();
    if (!empty && !whole) _refused++;
    if (!whole) _length = 0;
    _segment = _inSum = 0;
    _hasKey = _hasOrigin = _inOrigin = _damaged = false;
    return whole;
  }
  bool control = (uint8_t)c < ' ' || c == 0x7F, isFirst = !_length && !_hasOrigin;
  if (isFirst && (control || (uint8_t)c > '~')) return false;  // a power-up may leave such bytes
  _inSum ^= c;
  _ending[0] = _ending[1];
  _ending[1] = _ending[2];
  _ending[2] = c;
  if (control)
    _damaged = true;
  else if (c == '_')
    endSegment();
  else if (c == ':' && !_hasKey)
    endKey();
  else if (!_inOrigin || !_hasKey)
    store(c);
  return false;
}

void UsbGateBase::endSegment() {
  if (_inOrigin)
    _length = _origin;  // what follows continues ORIGIN, unless it turns out to have a key
  else
    store('_');
  _segment = _length;
  _hasKey = false;
}

void UsbGateBase::endKey() {
  _hasKey = true;
  if (_segment) _in[_segment - 1] = 0;  // in place of the _
  _inOrigin = _length - _segment == 6 && !strncmp(_in + _segment, "ORIGIN", 6);
  if (_inOrigin) {
    _hasOrigin = true;
    _origin = _segment;
  } else {
    store(':');
  }
}

void UsbGateBase::store(char c) {
  if (_length < _inSize - 1)
    _in[_length++] = c;
  else if (!_inOrigin)
    _damaged = true;
}

// Whether the line is a request; its last field is ended. Every request has an ORIGIN, and no line of a device has one:
// our own, which a terminal may send back, are no requests.
bool UsbGateBase::isWhole() {
  if (_damaged || !_hasOrigin) return false;
  if (_checksum) {
    uint8_t sum = _inSum ^ _ending[0] ^ _ending[1] ^ _ending[2];
    if (_ending[0] != '*' || _ending[1] != hexDigit(sum >> 4) || _ending[2] != hexDigit(sum & 15)) return false;
    if (!_inOrigin) _length -= 3;
  }
  if (_inOrigin)
    _length = _origin;
  else
    _in[_length++] = 0;
  UsbGateRequest request(*this, _in, _in + _length);
  return request.id() && request.command();
}

void UsbGateBase::call() {
  UsbGateRequest request(*this, _in, _in + _length);
  Handler handler = nullptr;
  for (const Entry *entry = _entries; entry < _entries + _entriesCount; entry++) {
    if (!entry->command) {
      handler = entry->handler;
    } else if (!strcmp(entry->command, request.command())) {
      handler = entry->handler;
      break;
    }
  }
  _request = CALLED;
  if (handler) handler(request);
  _request = NONE;
  _length = 0;
}
