"""
What a serial port receives if its speed is not that of the device.
"""

from __future__ import annotations

SPEEDS = (9600, 19200, 38400, 57600, 115200)  # baud, the usual ones


def misread(data: bytes, sent: int, read: int) -> bytes:
    """
    Send bytes at one speed, 8N1, without a pause, and read them at another.

    A UART samples each bit in its middle, counted from the falling edge of the start bit. A byte without its stop bit
    is a framing error, which a tty returns as NUL.

    Args:
        data: What is sent.
        sent: Baud.
        read: Baud.
    """
    line: list[int] = []  # the level of each bit sent
    for byte in data:
        line += [0, *(byte >> bit & 1 for bit in range(8)), 1]
    idle = len(line)
    line += [1] * 250 + [0]  # and then the line is idle
    received = bytearray()
    begins = 0
    while (begins := line.index(0, begins)) < idle:
        levels = [line[begins + int((bit + 0.5) * sent / read)] for bit in range(1, 10)]
        received.append(sum(level << bit for bit, level in enumerate(levels[:8])) if levels[8] else 0)
        begins += int(9.5 * sent / read)
        if not levels[8]:
            begins = line.index(1, begins)
    return bytes(received)
