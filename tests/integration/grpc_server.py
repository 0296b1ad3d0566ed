"""A gRPC server on threads: `slow` answers after as many seconds as it is asked for, `waiting` says how many are waited for.

python grpc_server.py PORT
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

lock = threading.Lock()
waiting = 0


def slow(request: bytes, context: Any) -> bytes:
    global waiting
    with lock:
        waiting += 1
    try:
        time.sleep(float(request))
    finally:
        with lock:
            waiting -= 1
    return request


def count(request: bytes, context: Any) -> bytes:
    return str(waiting).encode()


METHODS: dict[str, Callable[[bytes, Any], bytes]] = {"slow": slow, "waiting": count}

if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(256))
    handlers = {name: grpc.unary_unary_rpc_method_handler(function) for name, function in METHODS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
