"""Follow readings and alarms as they happen: python3 follow.py [ADDRESS]"""

import json
import sys
from urllib.request import urlopen

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
with urlopen(f"{address}/api/v1/events", timeout=60) as stream:  # a comment comes every 15 s
    event = ""
    for line in stream:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            event = value
        elif key == "data" and event == "reading":
            reading = json.loads(value)
            print(reading["at"], reading["sensor"], reading["values"], flush=True)
        elif key == "data" and event == "alarm":
            print("ALARM", value, flush=True)
