"""The HTTP server against its peers: `python -m bench.http`.

How the numbers are kept honest, beyond what bench/__init__.py says:

* A server has one core and the load has another. What a request costs the server is the CPU time of all its processes, read
  in /proc at both ends of a window; requests per second stand beside it, since a fast server can be faster than the load.
* The load is wrk, which nobody here has written, where it is installed; where it is not, bench/limit/http.c. The result says
  which. The connections of the picture are always made by the latter: wrk makes them all at once, and ten thousand overflow
  every backlog, so that it measures the kernel's retransmissions.
* Every server is told to hold as many connections as there will be, for as long as it takes, and to write no access log.
  Servers with a pool of threads have 8, as their documents advise, and 512 for handlers that sleep at 512 connections.
* An answer that is not the right one is cheap. Each path is asked for, and compared, before it is measured; failures are
  counted in every window, and shown.
* Servers alternate in rounds. What is published are medians, and ratios taken within a round.
"""
