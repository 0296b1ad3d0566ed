"""urllib3 by itself, with its own retries off."""

import re

import urllib3
from measuring import ASKED, COUNT, main

pool = urllib3.PoolManager(maxsize=COUNT + 1, block=True, retries=False, ca_certs=ASKED.get("authority"))


def get(path):
    answer = pool.request("GET", ASKED["url"] + path)
    assert answer.status == 200, answer.status
    return answer.data.decode()


def in_flight():
    return int(re.search(r"Writing: (\d+)", get("/status"))[1]) - 1  # but this one


main(
    slow=lambda seconds: get(f"/slow/{seconds}"),
    quick=lambda: get("/quick"),
    in_flight=in_flight,
    errors=urllib3.exceptions.HTTPError,
)
