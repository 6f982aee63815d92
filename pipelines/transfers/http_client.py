"""The HTTP client of all requests to the hub, and which redirects it follows."""

import functools
import ipaddress
import socket
import ssl
import urllib.request
from urllib.parse import urlsplit

import httpx2

from core.failures import FailureKind
from core.remote.waiting import server_of
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchFailed

__all__ = [
    "MAX_REDIRECTS",
    "is_same_server",
    "open_client",
    "redirect_target",
    "request_headers",
    "transport_problem",
]

MAX_REDIRECTS = 8


def open_client(config: FetchConfig) -> httpx2.AsyncClient:
    """Return a client with the time limits of a connection; it follows no redirect by itself.

    Raises FetchFailed if the environment names a proxy that cannot be used.
    """
    timeout = httpx2.Timeout(config.stall_seconds, connect=config.connect_seconds)
    try:
        return httpx2.AsyncClient(timeout=timeout, verify=_tls())
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        text = f"the proxy cannot be used: {error}; check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"
        raise FetchFailed(FailureKind.DOWNLOAD, text) from None


def request_headers(token: str | None) -> dict[str, str]:
    """Return the headers of a request; the answer's bytes then have the announced length."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "lrm-objaverse"}
    return headers | ({"Authorization": f"Bearer {token}"} if token else {})


def transport_problem(error: httpx2.TransportError, url: str) -> str:
    """Return what is wrong with the connection to a URL's server, and the proxy that it uses."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        through = ""
    else:
        through = f" (through the proxy {server_of(proxy)})"
    return f"{type(error).__name__} {error}".strip() + through


def is_same_server(url: httpx2.URL, other: httpx2.URL) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return (url.scheme, url.host, url.port) == (other.scheme, other.host, other.port)


def redirect_target(url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    """Return where a response redirects a request for `url`.

    Raises FetchFailed for a target that no content server has: another scheme than HTTP, HTTP
    without TLS after HTTPS, or an address that only this machine or its network card reaches, as
    the credentials of cloud machines at 169.254.169.254.
    """
    try:
        target = url.join(response.headers["location"])
    except httpx2.InvalidURL as error:
        raise _refused(url, response.headers["location"], str(error)) from None
    if target.scheme not in ("http", "https"):
        raise _refused(url, str(target), "only http:// and https:// are followed")
    if url.scheme == "https" and target.scheme == "http":
        raise _refused(url, str(target), "it leaves HTTPS")
    if target.host != url.host and _is_machine_local(target.host, url.host):
        raise _refused(url, str(target), "the address is local to this machine")
    return target


def _refused(url: httpx2.URL, target: str, reason: str) -> FetchFailed:
    text = f"{url}: the redirect to {target[:200]} is refused: {reason}"
    return FetchFailed(FailureKind.DOWNLOAD, f"{text}; check HF_ENDPOINT and the proxy")


def _is_machine_local(host: str, origin: str) -> bool:
    """Return whether a host is a link-local address, or a loopback address of another origin."""
    address, source = _address(host), _address(origin)
    if address is None:
        return host == "localhost" and not (source and source.is_loopback)
    loopback = address.is_loopback and not (
        origin == "localhost" or (source and source.is_loopback)
    )
    return address.is_link_local or address.is_unspecified or address.is_multicast or loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host's name stands for by itself; None for other names."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # The resolver also accepts forms such as 0xA9FEA9FE.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
