"""A real MariaDB as a peer, over TCP: the user `fibers` may do everything, without a password."""

import shutil
import socket
from pathlib import Path

from support.servers import Server, find, unprivileged


class MariaDB(Server):
    """Its folder begins empty: what is asked of it needs none of the tables that describe users and the rest."""

    FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec")

    def __init__(self) -> None:
        self.program = find("mariadbd", "mariadb-server", *self.FOLDERS)
        super().__init__(unprivileged())
        self.data.mkdir()
        if self.user is not None:
            shutil.chown(self.data, self.user)

    SMALL = ("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def path(self) -> str:
        return str(self.folder / "socket")

    def command(self) -> list[str]:
        options = (
            f"--no-defaults --datadir={self.data} --socket={self.path} --bind-address={self.host} --port={self.port} "
            "--max-connections=500 --back-log=500 --skip-name-resolve --skip-grant-tables --skip-networking=0 "
            f"--pid-file={self.folder}/pid"
        )
        return [self.program, *options.split(), *self.SMALL]

    def answers(self) -> bool:
        """It greets who connects."""
        try:
            with socket.create_connection(self.address, 1.0) as probe:
                return len(probe.recv(100)) > 10
        except OSError:
            return False
