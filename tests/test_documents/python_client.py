"""Stands for ``python`` in a block: passes its arguments, environment, directory and streams to a process server.

Ends with the status of the process and forwards signals to it.
"""

import contextlib
import json
import os
import signal
import socket
import sys

server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
request = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(4, 'big')], [0, 1, 2])
server.sendall(request)
child = int.from_bytes(server.recv(4), 'big')


def forward(number, frame):
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, forward)
status = server.recv(4)
os._exit(int.from_bytes(status, 'big') if status else 70)
