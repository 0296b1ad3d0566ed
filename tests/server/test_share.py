"""One loop's share of a server, without the server around it."""

import socket as std
import threading
from typing import Any

import fibers
from fibers.io.socket import socket
from fibers.server.datagrams import Datagrams, Receiver
from fibers.server.share import Share

LIMIT = 20.0


class Owner:
    """Of one share that is to have no trouble."""

    def share_failed(self, error: BaseException) -> None:
        raise error

    def share_over(self) -> None:
        pass

    def retire(self, reason: str) -> None:
        raise AssertionError(reason)


def test_a_datagram_that_comes_as_the_adopted_socket_is_let_go_is_answered() -> None:
    def make(changed: Any) -> Datagrams:
        return Datagrams(changed, lambda data, address: data.upper(), 10)

    def main() -> None:
        share = Share(Owner(), [], make, Receiver, adopts=True)
        serving = fibers.spawn(share.run)
        share.stands.wait()
        orphan = socket(std.AF_INET, std.SOCK_DGRAM)
        orphan.bind(("127.0.0.1", 0))
        address = orphan.getsockname()
        share.adopt(1, [orphan])
        with std.socket(std.AF_INET, std.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(address)

            def ask_and_release() -> None:  # while the loop does not turn: it hears of both at once
                client.send(b"abc")
                share.release(1)

            client.send(b"first")
            assert fibers.to_thread(client.recv, 100) == b"FIRST"
            asking = threading.Thread(target=ask_and_release)
            asking.start()
            asking.join()
            assert fibers.to_thread(client.recv, 100) == b"ABC"
        share.stop(LIMIT)
        serving.join()
        assert share.error is None

    fibers.run(main)
