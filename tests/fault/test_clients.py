"""Clients that leave at the worst moment, and more of them than the process may have descriptors."""

import os
import resource
import socket
import time
import unittest

from tests.api.harness import BINARY, Daemon, DaemonCase, scratch, write


class Clients(DaemonCase):
    def test_clients_that_leave_in_the_middle_of_a_stream(self):
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        for _ in range(50):
            connection = self.daemon.connect()
            connection.sendall(f"GET /api/v2/tasks/{task}/logs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.recv(200)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no farewell
            connection.close()
        self.daemon.until(lambda: self.daemon.json("/api/v1/health")["active_log_streams"] == 0, 5, "no stream")
        self.assertEqual(self.daemon.task(task)["status"], "running")
        self.daemon.cancel_all()

    def test_clients_that_leave_before_the_answer(self):
        body = b'{"max_concurrent":{"cpu":{"training":2}}}'
        for _ in range(200):
            connection = self.daemon.connect()
            connection.sendall(b"POST /api/v2/resources/config HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" %
                               len(body) + body)
            connection.close()
        self.assertEqual(self.daemon.json("/api/v2/resources")["limits"]["cpu"]["training"], 2)

    def test_more_connections_than_descriptors(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        limited = write(scratch("bin") + "/limited", f'#!/bin/sh\nulimit -n 128; exec "{BINARY}" "$@"\n'.encode())
        os.chmod(limited, 0o755)
        daemon = Daemon(binary=limited)
        connections = []
        try:
            for _ in range(300):
                try:
                    connections.append(daemon.connect(2))
                except OSError:
                    break
            time.sleep(0.3)
        finally:
            for connection in connections:
                connection.close()
        self.assertEqual(daemon.json("/api/v1/health")["status"], "healthy")
        daemon.stop()


if __name__ == "__main__":
    unittest.main()
