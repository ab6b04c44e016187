"""HTTP and server-sent events over the standard library, and the error that everything here raises."""

import http.client
import json
import socket
import ssl
import time
from urllib.parse import quote, urlencode, urlsplit


class RFUAVError(Exception):
    """The service refused a request, or could not be reached.

    status: the HTTP status; None when there was no answer.
    detail: what the service said: a text, or for status 422 the list of faults.
    """

    def __init__(self, status, detail):
        self.status = status
        self.detail = detail
        super().__init__(_sentence(status, detail))


def _sentence(status, detail):
    if isinstance(detail, list):
        detail = "; ".join(
            ".".join(str(part) for part in fault.get("loc", [])[1:]) + ": " + str(fault.get("msg", ""))
            for fault in detail if isinstance(fault, dict))
    return str(detail) if status is None else f"{status}: {detail}"


# what can go wrong between two ends of a connection
BROKEN = (OSError, http.client.HTTPException)


class Transport:
    """One service at one address. Every request has a connection of its own, so threads may share a Transport."""

    def __init__(self, base_url, api_key=None, timeout=30.0):
        parts = urlsplit(base_url if "://" in base_url else "http://" + base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url must be of the form http://host:port, not {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": "Bearer " + api_key} if api_key else {}

    def path(self, template, *ids):
        """Fills the ids into a path, percent-encoded."""
        return template.format(*(quote(str(part), safe="") for part in ids))

    def call(self, method, path, body=None, query=None):
        """The answer as Python objects; RFUAVError for a status of 400 and up, or without an answer."""
        headers = dict(self._headers, Accept="application/json")
        data = None
        if body is not None:
            data = json.dumps(body, ensure_ascii=False).encode("utf-8")
            headers["Content-Type"] = "application/json"
        if query:
            path += "?" + urlencode(query)
        try:
            connection, response = self._open(method, path, data, headers, self.timeout)
            try:
                text = response.read()
            finally:
                connection.close()
        except BROKEN as error:
            raise self._unreachable(error) from error
        return _answer(response.status, text)

    def stream(self, path, idle_timeout=90.0, patience=60.0):
        """Yields the events of a stream, from the first, until the final one (it has the key `status`), which is
        yielded too. After a broken connection it goes on where it was, for up to `patience` seconds without success."""
        last_id, retry, lost_since = None, 0.5, None
        while True:
            headers = dict(self._headers, Accept="text/event-stream")
            if last_id is not None:
                headers["Last-Event-ID"] = last_id
            try:
                connection, response = self._open("GET", path, None, headers, idle_timeout)
                try:
                    if response.status != 200:
                        if lost_since is not None and response.status == 404:
                            return  # the record was deleted while we were reading
                        _answer(response.status, response.read())
                    for event_id, retry_ms, data in parse_events(response):
                        last_id = last_id if event_id is None else event_id
                        retry = retry if retry_ms is None else retry_ms / 1000
                        lost_since = None
                        if data is None:
                            continue
                        event = json.loads(data)
                        final = "status" in event and "level" not in event
                        yield event
                        if final:
                            return
                finally:
                    connection.close()
                broken = "the stream ended before the task did"
            except BROKEN as error:
                broken = error
            now = time.monotonic()
            lost_since = lost_since or now
            if now - lost_since > patience:
                raise self._unreachable(broken)
            time.sleep(min(retry, 5.0))

    def _open(self, method, path, data, headers, timeout):
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        extra = {"context": ssl.create_default_context()} if self._secure else {}
        connection = make(self._host, self._port, timeout=timeout, **extra)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request(method, self._prefix + path, body=data, headers=headers)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _unreachable(self, error):
        return RFUAVError(None, f"no answer from {self.base_url}: {error or type(error).__name__}"
                                " (is the service running? `rfuav serve` starts it)")


def _answer(status, text):
    try:
        value = json.loads(text)
    except ValueError:
        value = text.decode("utf-8", "replace")
    if status >= 400:
        raise RFUAVError(status, value.get("detail", value) if isinstance(value, dict) else value)
    return value


def parse_events(lines):
    """Parses server-sent events out of an iterable of byte lines: yields (id, retry in ms, data) for each, with None
    for what an event does not carry."""
    event_id, retry, data = None, None, []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data or event_id is not None or retry is not None:
                yield event_id, retry, "\n".join(data) if data else None
            event_id, retry, data = None, None, []
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data.append(value)
        elif name == "id":
            event_id = value
        elif name == "retry" and value.isdigit():
            retry = int(value)
