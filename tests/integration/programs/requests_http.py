"""requests, over HTTP or HTTPS: nginx answers when some seconds have passed."""

import re

import requests
from measuring import ASKED, COUNT, main

session = requests.Session()
session.mount(ASKED["url"], requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=COUNT + 1))
session.verify = ASKED.get("authority")
session.trust_env = False


def get(path):
    answer = session.get(ASKED["url"] + path)
    answer.raise_for_status()
    return answer.text


def in_flight():
    return int(re.search(r"Writing: (\d+)", get("/status"))[1]) - 1  # but this one


main(
    slow=lambda seconds: get(f"/slow/{seconds}"),
    quick=lambda: get("/quick"),
    in_flight=in_flight,
    errors=requests.RequestException,
)
