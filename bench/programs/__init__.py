"""A whole program, written for threads, on fibers, on gevent and on threads.

`python -m bench.programs [--rounds N] [--seconds S] [--connections N] [--keep]`.

The program (app.py) is Flask on its own threaded server. For each request it asks a service by `requests` and a Redis, both
real (nginx, which answers when some time has passed, and redis-server), through pools that are large enough. It is
started by `python -m fibers run`, by `python -m gevent.monkey` and by `python`, and nothing in it knows which. Its
clients are wrk's: as many as there shall be requests at once, each with the next as soon as its last was answered.
Flask's server closes the connection after each request: so a request costs a thread, too, or a fiber.

Each round gives each contender a process of its own, one after the other, in an order that moves on from round to round.
It is put under load for a while to warm up, and then measured: requests a second and the latency as wrk has them, the CPU
time a request from /proc, and the peak of the resident memory. The load has the other core, and so have nginx and Redis;
a machine with neighbours only takes away: so beside the medians of all rounds stands the round with most requests.
"""
