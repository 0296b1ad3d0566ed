"""Programs to measure, and what they are measured with: for `python -m fibers demo` and `info --backends`.

An echo server and its clients are two processes, both written in plain blocking style. The figures are the server's: its
process takes them of itself.

    limits      how many connections a process may have
    options     numbers on the command line
    progress    the line on stderr meanwhile
    latency     how long requests took
    snapshot    what the server says of itself when it is asked
    syscalls    reads strace's log of a run
    process     the server's process: started, asked, ended
    load        the clients: one fiber a connection
    server      what runs in the server's process
    waits       another program: nothing but operations that have to wait, for counting what one costs
"""
