"""Sections 1 and 2 of the contract: HTTP itself, by raw bytes."""

import json
import socket
import time
import unittest

from tests.api.harness import Answer, Daemon, DaemonCase

GET_ROUTES = ["/", "/api/v1/health", "/api/v1/info", "/api/v2/tasks", "/api/v2/resources", "/api/v2/resources/gpu",
              "/api/v2/resources/cpu", "/openapi.json"]
POST_ROUTES = ["/api/v2/training/start", "/api/v2/inference/start", "/api/v2/inference/batch",
               "/api/v2/resources/config"]
JSON_TYPE = {"Content-Type": "application/json"}


class Transport(DaemonCase):
    def test_answers_are_json_without_charset(self):
        for path in GET_ROUTES:
            answer = self.daemon.ask("GET", path)
            self.assertEqual((path, answer.status, answer.headers["content-type"]), (path, 200, "application/json"))
            self.assertIsInstance(answer.json(), dict)

    def test_non_ascii_is_sent_raw(self):
        answer = self.daemon.ask("GET", "/api/v2/tasks/nichts-日本")
        self.assertEqual(answer.status, 404)
        self.assertEqual(answer.body, '{"detail":"任务 nichts-日本 不存在"}'.encode())

    def test_path_ids_are_percent_decoded(self):
        answer = self.daemon.ask("GET", "/api/v2/tasks/a%20b%E4%BB%BB")
        self.assertEqual(answer.json(), {"detail": "任务 a b任 不存在"})

    def test_fixed_names_come_before_ids(self):
        for path, name in (("/api/v2/training/start", "start"), ("/api/v2/inference/batch", "batch"),
                           ("/api/v2/inference/start", "start")):
            answer = self.daemon.ask("GET", path)
            self.assertEqual((answer.status, answer.json()), (404, {"detail": f"任务 {name} 不存在"}))

    def test_keep_alive(self):
        with self.daemon.connect() as connection:
            for _ in range(3):
                connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(Answer(connection).status, 200)

    def test_pipelined_requests(self):
        with self.daemon.connect() as connection:
            connection.sendall(b"GET /api/v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
            first = Answer(connection)
            connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual((first.status, Answer(connection).status), (200, 404))

    def test_trailing_slash_redirects(self):
        for method, path in [("GET", p) for p in GET_ROUTES if p != "/"] + [("POST", p) for p in POST_ROUTES] + \
                [("GET", "/api/v2/tasks/x"), ("POST", "/api/v2/tasks/x/cancel"), ("DELETE", "/api/v2/tasks/x")]:
            answer = self.daemon.ask(method, path + "/", body=b"" if method == "POST" else None)
            self.assertEqual((method, path, answer.status, answer.body), (method, path, 307, b""))
            self.assertEqual(answer.headers["location"], "http://example:1234" + path)

    def test_wrong_method(self):
        for method, path, allow in [("POST", "/api/v1/health", "GET"), ("GET", "/api/v2/resources/config", "POST"),
                                    ("PUT", "/api/v2/tasks", "GET"), ("PATCH", "/api/v2/tasks/x", "GET"),
                                    ("GET", "/api/v2/tasks/x/cancel", "POST"), ("OPTIONS", "/api/v2/tasks", "GET"),
                                    ("POST", "/", "GET")]:
            answer = self.daemon.ask(method, path)
            self.assertEqual((path, answer.status, answer.body), (path, 405, b'{"detail":"Method Not Allowed"}'))
            self.assertEqual(answer.headers["allow"], allow)

    def test_head_is_not_answered(self):
        answer = self.daemon.ask("HEAD", "/api/v1/health")
        self.assertEqual((answer.status, answer.body), (405, b""))

    def test_no_route(self):
        for path in ("/x", "/api", "/api/v2", "/api/v2/inference/x/logs", "/api/v2/tasks/x/y", "/api/v2/train"):
            answer = self.daemon.ask("GET", path)
            if path == "/api/v2/train" and answer.status == 405:
                continue  # an alias that old pages use is welcome
            self.assertEqual((path, answer.status, answer.body), (path, 404, b'{"detail":"Not Found"}'))

    def test_unknown_query_is_ignored_and_the_last_of_equal_ones_wins(self):
        self.assertEqual(self.daemon.ask("GET", "/api/v2/tasks?x=1&limit=abc&limit=5&status").status, 200)
        self.assertEqual(self.daemon.ask("GET", "/api/v2/tasks?limit=5&limit=abc").status, 422)

    # -- CORS --

    def test_cors_without_origin(self):
        headers = self.daemon.ask("GET", "/api/v1/health").headers
        self.assertEqual([name for name in headers if name.startswith("access-control")], [])

    def test_cors_with_origin(self):
        for origin in ("http://a.example", "null"):
            headers = self.daemon.ask("GET", "/api/v1/health", {"Origin": origin}).headers
            self.assertEqual(headers["access-control-allow-origin"], "*")
            self.assertEqual(headers["access-control-allow-credentials"], "true")

    def test_cors_on_errors_and_streams(self):
        for path in ("/nothing", "/api/v2/tasks/x/logs"):
            self.assertEqual(self.daemon.ask("GET", path, {"Origin": "http://a"}).headers["access-control-allow-origin"],
                             "*")

    def test_cors_with_cookie(self):
        headers = self.daemon.ask("GET", "/api/v1/health", {"Origin": "http://a.example", "Cookie": "a=b"}).headers
        self.assertEqual(headers["access-control-allow-origin"], "http://a.example")
        self.assertEqual(headers["access-control-allow-credentials"], "true")
        self.assertEqual(headers["vary"], "Origin")

    def test_cors_preflight(self):
        for path in ("/api/v2/training/start", "/nothing/at/all"):
            answer = self.daemon.ask("OPTIONS", path, {
                "Origin": "http://a.example", "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-y"})
            self.assertEqual((answer.status, answer.body), (200, b"OK"))
            self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(answer.headers["access-control-allow-origin"], "http://a.example")
            self.assertEqual(answer.headers["access-control-allow-credentials"], "true")
            self.assertEqual(answer.headers["access-control-allow-methods"],
                             "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
            self.assertEqual(answer.headers["access-control-max-age"], "600")
            self.assertEqual(answer.headers["access-control-allow-headers"], "content-type,x-y")
            self.assertEqual(answer.headers["vary"], "Origin")

    # -- bodies --

    def start(self, body, headers=JSON_TYPE):
        return self.daemon.ask("POST", "/api/v2/inference/start", headers, body)

    def test_content_types(self):
        body = b'{"cfg_path":"/nowhere/c.yaml","weight_path":"w","source_path":"s"}'
        for kind in (None, "application/json", "application/json; charset=utf-8", "application/vnd.api+json",
                     "Application/JSON"):
            answer = self.start(body, {"Content-Type": kind} if kind else {})
            self.assertEqual((kind, answer.status), (kind, 400))
            self.assertEqual(answer.json(), {"detail": "配置文件不存在: /nowhere/c.yaml"})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"):
            answer = self.start(body, {"Content-Type": kind})
            self.assertEqual((kind, answer.status), (kind, 422))
            fault, = answer.json()["detail"]
            self.assertEqual((fault["type"], fault["loc"]), ("model_attributes_type", ["body"]))
            self.assertEqual(fault["input"], body.decode())

    def test_missing_body(self):
        for body in (None, b"", b"null"):
            answer = self.start(body)
            self.assertEqual(answer.status, 422)
            fault, = answer.json()["detail"]
            self.assertEqual((fault["type"], fault["loc"], fault["msg"], fault["input"]),
                             ("missing", ["body"], "Field required", None))

    def test_body_that_is_no_object(self):
        for body, value in ((b"[]", []), (b"7", 7), (b'"x"', "x"), (b"true", True)):
            answer = self.start(body)
            self.assertEqual(answer.status, 422)
            fault, = answer.json()["detail"]
            self.assertEqual((fault["type"], fault["loc"], fault["input"]), ("model_attributes_type", ["body"], value))
            self.assertEqual(fault["msg"], "Input should be a valid dictionary or object to extract fields from")

    def test_malformed_json(self):
        for body in (b"{", b"{,}", b'{"a":}', b"{'a':1}", b'{"a":1}x', b"nul", b'{"a":01}', b'{"a":"\x01"}', b"\x00"):
            answer = self.start(body)
            self.assertEqual((body, answer.status), (body, 422))
            fault, = answer.json()["detail"]
            self.assertEqual((fault["type"], fault["msg"], fault["input"]), ("json_invalid", "JSON decode error", {}))
            self.assertEqual(fault["loc"][0], "body")
            self.assertIsInstance(fault["loc"][1], int)
            self.assertIsInstance(fault["ctx"]["error"], str)
            self.assertNotIn("url", fault)

    def test_malformed_json_offset_counts_characters(self):
        fault, = self.start('{"name":"日本", ?}'.encode()).json()["detail"]
        self.assertIn(fault["loc"][1], range(12, 16))

    def test_byte_order_mark_is_skipped(self):
        body = b'\xef\xbb\xbf{"cfg_path":"/no","weight_path":"w","source_path":"s"}'
        self.assertEqual(self.start(body).status, 400)

    def test_body_that_is_not_utf8(self):
        for body in (b'{"cfg_path":"\xff"}', b"\xc0\x80", b'{"a":"\xed\xa0\x80"}', b"\xfe\xff\x00{"):
            answer = self.start(body)
            self.assertEqual((answer.status, answer.json()),
                             (400, {"detail": "There was an error parsing the body"}))

    def test_deep_nesting(self):
        for depth in (1000, 100000):
            answer = self.start(b'{"cfg_path":' + b"[" * depth + b"]" * depth + b"}")
            self.assertEqual(answer.status, 422)

    def test_equal_keys_last_wins(self):
        body = b'{"cfg_path":"/first","cfg_path":"/second","weight_path":"w","source_path":"s"}'
        self.assertEqual(self.start(body).json(), {"detail": "配置文件不存在: /second"})

    def test_ten_megabytes_are_refused(self):
        body = b'{"cfg_path":"' + b"x" * (10 << 20) + b'"}'
        head = f"POST /api/v2/inference/start HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with self.daemon.connect(20) as connection:
            connection.sendall(head)
            try:
                connection.sendall(body)
            except OSError:
                pass  # it need not read what it refuses
            answer = Answer(connection, "POST")
        self.assertEqual(answer.status, 413)
        self.assertIn("detail", answer.json())

    def test_ten_megabytes_in_chunks_are_refused(self):
        with self.daemon.connect(20) as connection:
            connection.sendall(b"POST /api/v2/inference/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            piece = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
            try:
                for _ in range(160):
                    connection.sendall(piece)
                connection.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            try:
                self.assertEqual(Answer(connection, "POST").status, 413)
            except ConnectionResetError:
                pass  # cut off: as good a refusal

    def test_three_megabytes_are_read(self):
        answer = self.start(b'{"cfg_path":"' + b"x" * (3 << 20) + b'"}')
        self.assertEqual(answer.status, 422)  # the other fields are missing

    def test_expect_continue(self):
        body = b'{"cfg_path":"/no","weight_path":"w","source_path":"s"}'
        with self.daemon.connect() as connection:
            connection.sendall(b"POST /api/v2/inference/start HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                               b"Content-Length: %d\r\n\r\n" % len(body))
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 100"))
            connection.sendall(body)
            self.assertEqual(Answer(connection, "POST").status, 400)

    # -- rough clients --

    def test_byte_by_byte(self):
        body = b'{"cfg_path":"/no","weight_path":"w","source_path":"s"}'
        data = b"POST /api/v2/inference/start HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with self.daemon.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(0.002)
            self.assertEqual(Answer(connection, "POST").status, 400)

    def test_client_that_leaves_in_the_middle(self):
        for data in (b"GET", b"GET /api/v1/health HTTP/1.1\r\nHo", b"POST /api/v2/inference/start HTTP/1.1\r\n"
                     b"Host: x\r\nContent-Length: 1000\r\n\r\n{\"cfg"):
            with self.daemon.connect() as connection:
                connection.sendall(data)

    def test_garbage(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"\0" * 1000, b"GET\r\n\r\n",
                     b"GET / HTTP/9.9\r\n\r\n", b"A" * 100000 + b"\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                     b"POST /api/v2/inference/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"GET /%ff%00%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /api/v2/tasks/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /api/v2/tasks/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /api/v2/tasks/" + b"a" * 30000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
            with self.daemon.connect() as connection:
                connection.settimeout(2)
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    first = connection.recv(12)
                except OSError:
                    continue
                if first:
                    self.assertRegex(first, rb"^HTTP/1\.[01] 4\d\d|^HTTP/1\.1 505", data[:60])

    def test_ids_that_are_no_text(self):
        for escaped in ("%00", "%ff", "a%2Fb", "%0a", "..", "%2e%2e", "'%20OR%201=1--", "%F0%9F%98%80"):
            answer = self.daemon.ask("GET", f"/api/v2/tasks/{escaped}")
            self.assertIn((escaped, answer.status), ((escaped, 404), (escaped, 400), (escaped, 422)))
            json.loads(answer.body)

    def test_a_thousand_idle_connections(self):
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2000:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        connections = []
        try:
            for i in range(1000):
                connections.append(self.daemon.connect())
                if i % 3 == 0:
                    connections[-1].sendall(b"GET /api/v1/hea")  # some have begun a request
            started = time.monotonic()
            self.assertEqual(self.daemon.ask("GET", "/api/v1/health").status, 200)
            self.assertLess(time.monotonic() - started, 1)
            connections[0].sendall(b"lth HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(Answer(connections[0]).status, 200)
        finally:
            for connection in connections:
                connection.close()


class Origins(DaemonCase):
    OPTIONS = {"env": {"CORS_ORIGINS": '["http://good.example"]'}}

    def test_listed_origin(self):
        headers = self.daemon.ask("GET", "/api/v1/health", {"Origin": "http://good.example"}).headers
        self.assertEqual(headers["access-control-allow-origin"], "http://good.example")

    def test_unlisted_origin(self):
        headers = self.daemon.ask("GET", "/api/v1/health", {"Origin": "http://bad.example"}).headers
        self.assertNotIn("access-control-allow-origin", headers)

    def test_unlisted_preflight(self):
        answer = self.daemon.ask("OPTIONS", "/api/v2/tasks", {"Origin": "http://bad.example",
                                                             "Access-Control-Request-Method": "GET"})
        self.assertEqual((answer.status, answer.body), (400, b"Disallowed CORS origin"))
        self.assertNotIn("access-control-allow-origin", answer.headers)


class ApiKey(DaemonCase):
    OPTIONS = {"env": {"API_KEY": "geheim-密"}}

    def tearDown(self):
        self.assertTrue(self.daemon.alive())

    def test_without_the_key(self):
        for path in ("/api/v2/tasks", "/api/v2/resources", "/api/v2/tasks/x/logs"):
            answer = self.daemon.ask("GET", path)
            self.assertEqual((path, answer.status), (path, 401))
            self.assertIn("detail", answer.json())
        answer = self.daemon.ask("POST", "/api/v2/training/start", JSON_TYPE, b"{}")
        self.assertEqual(answer.status, 401)

    def test_with_a_wrong_key(self):
        for key in ("geheim", "geheim-密x", "", "Geheim-密"):
            self.assertEqual(self.daemon.ask("GET", "/api/v2/tasks", {"Authorization": f"Bearer {key}"}).status, 401)

    def test_with_the_key(self):
        self.assertEqual(self.daemon.ask("GET", "/api/v2/tasks", {"Authorization": "Bearer geheim-密"}).status, 200)


class BindAddress(unittest.TestCase):
    def test_beyond_loopback_needs_a_key_or_a_flag(self):
        with self.assertRaises(RuntimeError) as caught:
            Daemon(args=["--host", "0.0.0.0"])
        self.assertIn("ended with", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
