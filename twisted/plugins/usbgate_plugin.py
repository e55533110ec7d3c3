"""
Makes `twistd usbgate` known to Twisted; how it is put together is in `usbgate.tap`.
"""

from twisted.application.service import ServiceMaker

usbgate = ServiceMaker(
    "usbgate", "usbgate.tap", "A gateway between a serial device, its askers and PostgreSQL.", "usbgate"
)
