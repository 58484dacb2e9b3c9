"""session.py serve ADDRESS | session.py talk ADDRESS SECONDS: a TCP session in which every line
gets an answer, as in ssh. `talk` prints how many lines it exchanged and the longest wait in
milliseconds, and fails when an answer is wrong or takes longer than five seconds."""

import socket
import sys
import time

PORT = 2222


def serve(address):
    """Echoes lines to one client after the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, PORT))
    listener.listen()
    while True:
        client, _ = listener.accept()
        for line in client.makefile("rb"):
            client.sendall(line)


def talk(address, seconds):
    """Keeps one session going."""
    client = socket.create_connection((address, PORT), timeout=5)
    answers, end, number, longest = client.makefile("rb"), time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        line = b"line %d\n" % number
        start = time.monotonic()
        client.sendall(line)
        if answers.readline() != line:
            sys.exit("a wrong answer")
        longest = max(longest, time.monotonic() - start)
        number += 1
        time.sleep(0.02)
    print(number, int(longest * 1000))


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    talk(sys.argv[2], float(sys.argv[3]))
