"""`python -m fibers demo`: an echo server and its clients, in two processes, both written in plain blocking style.

    conduct     the command: options, the phases in their order, exit status
    limits      how many connections the process may have
    process     the server's process: started, asked, ended
    server      what runs in there
    snapshot    what the server says of itself when it is asked
    load        the clients: one fiber a connection
    latency     how long requests took
    syscalls    reads strace's log of a second, shorter run
    report      the table
    progress    the line on stderr meanwhile

Nothing here is a benchmark to compare with others (that is `bench/`); it shows what one request costs the server, in
figures that the server's process takes of itself.
"""
