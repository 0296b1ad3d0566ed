"""What the programs of this folder do with a library. Written for threads: nothing here knows of fibers.

A program gives an operation that its server lets wait, and one that it answers at once. What is shown is

1. how long one that waits takes, and how long many at once take;
2. that when the server is killed each operation in flight ends with an error of the library's own, and each succeeds when
   it is tried again until the server is back.

Each step prints a line of JSON, and the next begins when a line comes back. The test that started the program reads and
writes them, and kills the server in between.
"""

import faulthandler
import json
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

#: Where the server is, and how much is to be done: see `test_programs.py`.
ASKED = json.loads(sys.argv[1])
COUNT = ASKED["count"]

faulthandler.dump_traceback_later(100, exit=True)  # whoever hangs, tells where
logging.disable()  # that a server is gone is no news


def tell(**facts):
    print(json.dumps(facts), flush=True)


def main(slow, quick, in_flight, errors):
    """`slow(seconds)` and `quick()` raise `errors` if the server is gone; `in_flight()` is how many wait on the server."""
    with ThreadPoolExecutor(COUNT) as pool:
        everybody = threading.Barrier(COUNT)

        def settle(number):
            everybody.wait()
            quick()

        list(pool.map(settle, range(COUNT)))  # every thread lives, and has its connection
        tell(step="ready", tasks=tasks())
        sys.stdin.readline()
        few = ASKED["few"]
        started = time.monotonic()
        for _ in range(few):
            slow(ASKED["seconds"])
        one = (time.monotonic() - started) / few
        started = time.monotonic()
        done = sum(1 for _ in pool.map(slow, [ASKED["seconds"]] * COUNT))
        tell(step="compared", done=done, one=one, all=time.monotonic() - started)
    sys.stdin.readline()
    survive(slow, quick, in_flight, errors, min(COUNT, 20))


def survive(slow, quick, in_flight, errors, count):
    failures = []
    failed = threading.Event()

    def attempt():
        try:
            slow(30)
        except errors as error:
            failures.append(type(error).__name__)
        if len(failures) == count:
            failed.set()
        while True:
            try:
                return quick()
            except errors:
                time.sleep(0.02)

    threads = [threading.Thread(target=attempt) for _ in range(count)]
    for thread in threads:
        thread.start()
    while in_flight() < count:
        time.sleep(0.01)
    tell(step="waiting")
    failed.wait(20)
    tell(step="failed", failures=sorted(failures), expected=count)
    for thread in threads:
        thread.join()
    tell(step="recovered")


def tasks():
    """How many threads of the system's this process has. 0 where that cannot be seen."""
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
