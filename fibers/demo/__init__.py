"""`python -m fibers demo`: an echo server and its clients, in two processes, both written in plain blocking style.

    conduct     the command: options, the phases in their order, exit status
    report      the table

The server, its clients and what is measured of them are in fibers/measure. Nothing here is a benchmark to compare with
others (that is `bench/`); it shows what one request costs the server, in figures that the server's process takes of
itself.
"""
