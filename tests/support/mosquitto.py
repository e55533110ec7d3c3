"""
A real broker, and somebody else who uses it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest import SkipTest

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.folders import new_folder
from tests.support.running import RUN, free_port
from tests.support.waiting import eventually

# Debian has it where only root looks.
PROGRAM = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

# A daemon that gives Home Assistant little time between messages.
RUN_HURRIED = f"from usbgate.mqtt import announcer; announcer.GATHER = announcer.TURN = 0.05; {RUN}"


class Mosquitto:
    """
    A mosquitto on a port of its own, on the loopback interface.
    """

    def __init__(self, *settings: str) -> None:
        """
        Start it.

        Args:
            settings: Lines of its configuration; without any, everybody may do everything.

        Raises:
            SkipTest: It is not installed.
        """
        if PROGRAM is None:
            raise SkipTest("mosquitto is not installed")
        self.folder = new_folder()
        self.port = free_port()
        self._file = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._file.write_text(
            f"{user}listener {self.port} 127.0.0.1\n" + "\n".join(settings or ("allow_anonymous true",)) + "\n"
        )
        self.start()

    @property
    def endpoint(self) -> str:
        """
        Where it is, as an endpoint string.
        """
        return f"tcp:127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """
        What it has logged.
        """
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """
        Start it, and wait until it accepts connections.
        """
        assert PROGRAM is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-v", "-c", str(self._file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._listens, "mosquitto listens")

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"mosquitto ended: {self.log}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """
        Kill it; what it retained is gone.
        """
        self._process.kill()
        self._process.wait()

    def stall(self) -> None:
        """
        Stop it, as if it were slow, until `resume`.
        """
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """
        Let it run again.
        """
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """
        Kill it, and remove its folder.
        """
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def shared_mosquitto() -> Mosquitto:
    """
    Return a broker that all tests of this process share: each uses a gateway name of its own.
    """
    broker = Mosquitto()
    atexit.register(broker.close)
    return broker


class Peer:
    """
    Another client of a broker, by paho's own sockets and a thread of its own.

    Attributes:
        messages: What it received: topic, payload, and whether it was retained before the subscription.
    """

    def __init__(self, broker: Mosquitto, *filters: str, v5: bool = True, client: str = "") -> None:
        """
        Connect, and subscribe.

        Args:
            broker: The broker.
            filters: What to subscribe to.
            v5: Whether it speaks MQTT 5; otherwise 3.1.1.
            client: Its id; the broker chooses one if it is empty.
        """
        self.messages: list[tuple[str, str, bool]] = []
        self.received: list[MQTTMessage] = []
        self._subscribed = 0
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        )
        self.client.on_message = self._message
        self.client.on_subscribe = self._count
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        eventually(self.client.is_connected, "the other client is connected")
        for each in filters:
            self.client.subscribe(each, 1)
        eventually(lambda: self._subscribed == len(filters), "the other client has subscribed")

    def _message(self, client: object, data: object, message: MQTTMessage) -> None:
        self.received.append(message)
        self.messages.append((message.topic, message.payload.decode(), message.retain))

    def _count(self, *arguments: object) -> None:
        self._subscribed += 1

    def publish(self, topic: str, payload: str, retain: bool = False, properties: Any = None) -> None:
        """
        Publish a message, and wait until the broker has it.
        """
        self.client.publish(topic, payload, 1, retain, properties).wait_for_publish(10)

    def payloads(self, topic: str) -> Sequence[str]:
        """
        Return what was received on a topic.
        """
        return [payload for each, payload, _ in list(self.messages) if each == topic]

    def close(self) -> None:
        """
        Disconnect.
        """
        self.client.disconnect()
        self.client.loop_stop()


def password_file(folder: Path, user: str, password: str) -> Path:
    """
    Make a file with a user for mosquitto's setting `password_file`.
    """
    file = folder / "users"
    file.write_text(f"{user}:{password}\n")
    subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True, capture_output=True)
    return file
