"""
A stand-in for the daemon, run as a process: `standin.py STATE PORT [fault]`.

It holds STATE/lock, answers each request line on PORT, and writes its process id into STATE/started. The faults
are `dies` (logs why, and ends), `deaf` (holds the lock, and listens on another port) and `lingers` (ends some time
after it has released the lock).
"""

import fcntl
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Handler(socketserver.StreamRequestHandler):
    """
    Echo a request, and answer it.
    """

    def handle(self) -> None:
        """
        Handle each line.
        """
        for line in self.rfile:
            fields = dict(field.split(":", 1) for field in line.decode().strip().split("_"))
            self.wfile.write(line)
            self.wfile.write(f"ID:{fields['ID']}_VALUE:456_MSG:{fields['MSG']}_BY:{os.getpid()}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """
    A server whose threads end with the process.
    """

    daemon_threads = True
    allow_reuse_address = True


def main(state: Path, port: int, fault: str = "") -> None:
    """
    Run until killed.
    """
    with open(state / "started", "a") as started:
        started.write(f"{os.getpid()}\n")
    if fault == "dies":
        with open(state / "usbgate.log", "a") as log:
            log.write("2013-03-11T21:02:10+0000 [usbgate.tap#critical] no serial device: try --device\n")
            log.write("2013-03-11T21:02:10+0000 [-] Main loop terminated.\n")
        sys.exit(1)
    lock = open(state / "lock", "a")  # noqa: SIM115  # held for life
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another daemon has this state folder")
    lock.write(str(os.getpid()))
    lock.flush()
    if fault == "lingers":

        def end(signum: int, frame: object) -> None:
            lock.close()
            time.sleep(0.3)
            os._exit(0)

        signal.signal(signal.SIGTERM, end)
    with Server(("127.0.0.1", 0 if fault == "deaf" else port), Handler) as server:
        server.serve_forever()


@contextmanager
def answering(*replies: str) -> Iterator[int]:
    """
    Listen on a port, answer the first line received with these lines, and close the connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            channel, _ = server.accept()
            with channel, channel.makefile("rb") as lines:
                lines.readline()
                channel.sendall("".join(reply + "\n" for reply in replies).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(10)


@contextmanager
def replying(replies: Mapping[str, Sequence[str]], hangs_up: bool = False) -> Iterator[tuple[int, list[str]]]:
    """
    Listen on a port for one connection, and answer each line with the lines that stand behind it here, or else with
    none and `OK`.

    Args:
        replies: By line.
        hangs_up: Whether to close the connection after a line `watch` was answered.

    Yields:
        The port, and the lines received so far.
    """
    received: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            channel, _ = server.accept()
            with channel, channel.makefile("rb") as lines:
                for line in lines:
                    text = line.decode().strip()
                    received.append(text)
                    word = text.split()[0]
                    reply = [*replies.get(text, ()), *(() if word == "watch" else (f"OK:{word}",))]
                    channel.sendall("".join(each + "\n" for each in reply).encode())
                    if word == "watch" and hangs_up:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], received


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
