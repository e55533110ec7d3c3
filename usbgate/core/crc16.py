"""
The CRC-16 of meters and of Modbus: polynomial 0x8005, lowest bit first.
"""

from __future__ import annotations

_CRC_TABLE = [0] * 256
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = (_crc >> 1) ^ (0xA001 if _crc & 1 else 0)
    _CRC_TABLE[_byte] = _crc


def crc16(data: bytes, crc: int = 0) -> int:
    """
    Return the CRC-16 of some bytes.

    Args:
        data: The bytes.
        crc: What it begins with: 0 for CRC-16/ARC, 0xFFFF for CRC-16/MODBUS.
    """
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc
