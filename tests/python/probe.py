"""probe.py answer ADDRESS... | ask TASKS | encapsulate ADDRESS...: datagrams there and back, each
byte checked.

`answer` returns every datagram to its sender with the bytes in reverse order, from the address that
it was sent to. `ask` reads a JSON list of tasks (cell, source, destination, sizes, repeats), sends
for each size one datagram of random bytes, all of a task at once, and prints a line of JSON per
task: how many came back right, how many had to be sent again, how many answers came again, and
what went wrong first.
`encapsulate` holds the sockets by which Linux takes ESP in UDP, as an IKE daemon does."""

import json
import os
import select
import socket
import struct
import sys
import time

PORT = 4301
ENCAPSULATION_PORT = 4500
UDP_ENCAP = 100
UDP_ENCAP_ESPINUDP = 2
# Options that give a socket a policy of its own, and the directions of one (linux/xfrm.h).
XFRM_POLICY = {socket.AF_INET: (socket.IPPROTO_IP, 17), socket.AF_INET6: (socket.IPPROTO_IPV6, 35)}
XFRM_IN, XFRM_OUT = 0, 1
# A guest on a loaded machine is slow; what has not come back by then is lost.
LIMIT = 2.0
# The same where nothing is meant to come back.
SHORT_LIMIT = 0.5
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


def bypass(family, direction):
    """A struct xfrm_userpolicy_info that lets everything of the socket through."""
    selector = struct.pack("40x H 14x", family)
    lifetimes = bytes(96)
    allow = struct.pack("2I 4B 4x", 0, 0, direction, 0, 0, 0)
    return selector + lifetimes + allow


def encapsulate(addresses):
    """Serves until killed: ESP never comes up here."""
    socks = [bound(address, ENCAPSULATION_PORT) for address in addresses]
    for sock in socks:
        # Else a policy for the hosts themselves would want the outer datagram protected, too.
        for direction in (XFRM_IN, XFRM_OUT):
            sock.setsockopt(*XFRM_POLICY[sock.family], bypass(sock.family, direction))
        sock.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    print("encapsulating", flush=True)
    while True:
        time.sleep(3600)


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


def strays(sock, due):
    """How many of `due` answers more come before all are there or LIMIT is over. Closed with one of
    them in its queue, a socket takes it along, and no counter of the kernel has it."""
    came = 0
    end = time.monotonic() + LIMIT
    while came < due and time.monotonic() < end:
        sock.settimeout(max(end - time.monotonic(), 0.001))
        try:
            sock.recvfrom(65536)
            came += 1
        except socket.timeout:
            break
    return came


def exchange(sock, task):
    """All datagrams of a task there and back: how many came back right, how many were repeated, how
    many answers came again, and what is wrong or nothing. No two are of one length, so an answer's
    length names its question."""
    destination = task["destination"]
    missing = {size: os.urandom(size) for size in task["sizes"]}
    limit = LIMIT if task["repeats"] else SHORT_LIMIT
    right, repeated, again = 0, 0, 0
    for attempt in range(task["repeats"] + 1):
        repeated += len(missing) if attempt else 0
        for data in missing.values():
            sock.sendto(data, (destination, PORT))
        end = time.monotonic() + limit
        while missing:
            sock.settimeout(max(end - time.monotonic(), 0.001))
            try:
                back, sender = sock.recvfrom(65536)
            except socket.timeout:
                break
            if len(back) not in task["sizes"] or sender[0] != destination:
                return right, repeated, again, "%d bytes from %s" % (len(back), sender[0])
            # What was sent again may come back twice.
            data = missing.pop(len(back), None)
            if data is not None and back != data[::-1]:
                return right, repeated, again, "%d bytes came back changed" % len(back)
            right += data is not None
            again += data is None
        if not missing:
            again += strays(sock, repeated - again)
            return right, repeated, again, None
    return right, repeated, again, "no answer to %s bytes" % sorted(missing)


def ask(path):
    """Works through the tasks. A task that fails once is not tried further."""
    with open(path) as file:
        tasks = json.load(file)
    failed = 0
    for task in tasks:
        if failed == PATIENCE:
            break
        right, repeated, again, wrong = 0, 0, 0, None
        try:
            with bound(task["source"], 0) as sock:
                right, repeated, again, wrong = exchange(sock, task)
        except OSError as error:
            wrong = "%s: %s" % (task["source"], error)
        # One that is asked once only is meant to fail.
        failed += wrong is not None and task["repeats"] > 0
        finding = {"cell": task["cell"], "right": right, "repeated": repeated, "wrong": wrong}
        finding["again"] = again
        finding["flawed"] = task["repeats"] == 0
        print(json.dumps(finding), flush=True)


if sys.argv[1] == "answer":
    answer(sys.argv[2:])
elif sys.argv[1] == "encapsulate":
    encapsulate(sys.argv[2:])
else:
    ask(sys.argv[2])
