"""probe.py answer ADDRESS... | probe.py ask TASKS: datagrams there and back, each byte checked.

`answer` returns every datagram to its sender with the bytes in reverse order, from the address that
it was sent to. `ask` reads a JSON list of tasks (cell, source, destination, sizes), sends for each
size one datagram of random bytes, and prints a line of JSON per task: how many came back right, how
many had to be sent again, and what went wrong first."""

import json
import os
import select
import socket
import struct
import sys

PORT = 4301
# A guest on a loaded machine is slow; what has not come back by then is lost.
LIMIT = 2.0
# How often a lost datagram is sent again. The harness accounts for every one that was.
REPEATS = 3
# So many failing tasks say enough: each costs a few times LIMIT.
PATIENCE = 6
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_MTU_DISCOVER = 23


def bound(address, port):
    """A UDP socket that leaves fragmentation to whoever must do it."""
    six = ":" in address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, 0)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
    sock.bind((address, port))
    return sock


def answer(addresses):
    """Serves until killed."""
    socks = [bound(address, PORT) for address in addresses]
    for sock in socks:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    print("answering", flush=True)
    while True:
        for sock in select.select(socks, [], [])[0]:
            try:
                data, controls, _, sender = sock.recvmsg(65536, 256)
                reply = []
                for level, kind, info in controls:
                    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                        reply.append((level, kind, struct.pack("=i4s4s", 0, info[4:8], info[8:12])))
                    if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
                        reply.append((level, kind, info[:16] + struct.pack("=i", 0)))
                sock.sendmsg([data[::-1]], reply, 0, sender)
            except OSError as error:
                # The asker will miss the answer and say so.
                print(error, file=sys.stderr, flush=True)


def exchange(sock, destination, size):
    """One datagram there and back: how often it was repeated, and what is wrong or nothing."""
    data = os.urandom(size)
    for repeated in range(REPEATS + 1):
        try:
            sock.sendto(data, (destination, PORT))
            sock.settimeout(LIMIT)
            back, sender = sock.recvfrom(65536)
        except socket.timeout:
            continue
        except OSError as error:
            return repeated, "%d bytes: %s" % (size, error)
        if back != data[::-1] or sender[0] != destination:
            return repeated, "%d bytes came back changed" % size
        return repeated, None
    return REPEATS, "no answer to %d bytes" % size


def ask(path):
    """Works through the tasks. A task that fails once is not tried further."""
    with open(path) as file:
        tasks = json.load(file)
    failed = 0
    for task in tasks:
        if failed == PATIENCE:
            break
        right, repeated, wrong = 0, 0, None
        try:
            with bound(task["source"], 0) as sock:
                for size in task["sizes"]:
                    again, wrong = exchange(sock, task["destination"], size)
                    repeated += again
                    if wrong:
                        break
                    right += 1
        except OSError as error:
            wrong = "%s: %s" % (task["source"], error)
        failed += wrong is not None
        finding = {"cell": task["cell"], "right": right, "repeated": repeated, "wrong": wrong}
        print(json.dumps(finding), flush=True)


if sys.argv[1] == "answer":
    answer(sys.argv[2:])
else:
    ask(sys.argv[2])
