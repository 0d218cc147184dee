"""Names and addresses of machines, as requests and settings have them."""

import ipaddress
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name in a Host header, without port and brackets; empty where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as an open bracket
        return ""
