#!/usr/bin/python3
"""What kubelet's graceful node shutdown needs of systemd-logind, on a bus of its own.

    logind.py ADDRESS      reads `shutdown` and `cancel` from stdin, says `locked` and `released` on stdout

org.freedesktop.login1.Manager: InhibitDelayMaxUSec, Inhibit (a descriptor; who closes it has let go), and the signal
PrepareForShutdown. Debian's python3 runs it, whose python3-jeepney is not seen by others.
"""

import os
import select
import sys

from jeepney import DBusAddress, HeaderFields, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

MANAGER = DBusAddress("/org/freedesktop/login1", bus_name="org.freedesktop.login1", interface="org.freedesktop.login1.Manager")
DELAY_US = 3600 * 10**6  # enough for what the test asks: kubelet would write into /etc otherwise


def say(word):
    print(word, flush=True)


def main(address):
    connection = open_dbus_connection(address, enable_fds=True)
    connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.login1"))
    say("ready")
    lock = None  # our end: it ends when kubelet closes its own
    while True:
        # What jeepney has read already is not seen by select: it is asked without waiting first.
        ready, _, _ = select.select([connection.sock, sys.stdin, *([lock] if lock is not None else [])], [], [], 0.05)
        if lock in ready:
            os.close(lock)
            lock = None
            say("released")
        if sys.stdin in ready:
            word = sys.stdin.readline().strip()
            if not word:
                return
            connection.send(new_signal(MANAGER, "PrepareForShutdown", "b", (word == "shutdown",)))
        try:
            message = connection.receive(timeout=0)
        except TimeoutError:
            continue
        if message.header.message_type != MessageType.method_call:
            continue
        member = message.header.fields.get(HeaderFields.member)
        if member == "Get" and message.body[1] == "InhibitDelayMaxUSec":
            connection.send(new_method_return(message, "v", (("t", DELAY_US),)))
        elif member == "Inhibit":
            ours, theirs = os.pipe()
            connection.send(new_method_return(message, "h", (theirs,)))
            os.close(theirs)
            lock = ours
            say("locked")
        else:
            connection.send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))


if __name__ == "__main__":
    main(sys.argv[1])
