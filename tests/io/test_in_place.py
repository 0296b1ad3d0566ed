"""The operations are functions over any `socket.socket`: the standard class itself can be given them.

They are bound to the methods of the C type and find a socket's state without a slot in it, so instances made before
work as well, and nothing calls itself. A child process, because it changes the standard class for good.
"""

from support.process import run_python

SCRIPT = """
import socket
import fibers
from fibers.io import connecting, operations, state

before = socket.socketpair()  # made while the class was still the standard one

for name in ("recv", "recv_into", "recvfrom", "send", "sendall", "sendto"):
    setattr(socket.socket, name, getattr(operations, name))
socket.socket.connect = connecting.connect
socket.socket._real_close = lambda self, _ss=None: state.close(self)

def echo(sock):
    with sock:
        while data := sock.recv(100):
            sock.sendall(data)

def talk(near, far):
    served = fibers.spawn(echo, far)
    with near:
        for number in range(100):
            near.sendall(b"%d" % number)
            assert near.recv(100) == b"%d" % number
    served.result(5)

def main():
    after = socket.socketpair()
    both = [fibers.spawn(talk, *pair) for pair in (before, after)]  # either would hang the other if it blocked
    for each in both:
        each.result(5)
    assert type(before[0]) is socket.socket

fibers.run(main)
print("both talked")
"""


def test_the_standard_class_with_our_methods_suspends_only_its_fiber() -> None:
    child = run_python("-c", SCRIPT)
    assert (child.returncode, child.stdout, child.stderr) == (0, "both talked\n", "")
