"""grpc: calls that wait for their answer, some of which come as a stream."""

import grpc
from measuring import ASKED, main

channel = grpc.insecure_channel(
    f"{ASKED['host']}:{ASKED['port']}",
    options=[(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")],
)
slow = channel.unary_unary("/test.Service/slow")
streamed = channel.unary_stream("/test.Service/slow")
waiting = channel.unary_unary("/test.Service/waiting")


def ask(seconds):
    asked = str(seconds).encode()
    assert slow(asked) == asked


def quick():
    (answer,) = streamed(b"0")
    assert answer == b"0"


main(slow=ask, quick=quick, in_flight=lambda: int(waiting(b"")), errors=grpc.RpcError)
channel.close()
