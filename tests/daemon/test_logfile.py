"""
Which log is ours to bound; that it is, is shown by a daemon in `tests.daemon.test_end_to_end`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.daemon.logfile import log_file

# What twistd was told, and the file to which it then logs.
CASES: list[tuple[dict[str, object], str | None]] = [
    ({}, None),
    ({"nodaemon": True}, None),
    ({"nodaemon": True, "logfile": "-"}, None),
    ({"nodaemon": True, "logfile": "/x/log"}, "/x/log"),
    ({"nodaemon": False, "logfile": None}, "twistd.log"),
    ({"nodaemon": False, "logfile": "log"}, "log"),
    ({"nodaemon": False, "syslog": True, "logfile": "log"}, None),
    ({"nodaemon": False, "logger": print, "logfile": "log"}, None),
]


class LogFileTests(SynchronousTestCase):
    """
    A table.
    """

    def test_cases(self) -> None:
        """
        Only a file to which twistd itself would log is ours.
        """
        for options, expected in CASES:
            self.assertEqual(log_file(options), expected, options)
