"""A service of canned answers, for what a real one does too seldom: connections that break in the middle of a stream,
chunks cut at odd places, statuses that do not occur."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler


def event(number, **fields):
    return f"id: {number}\ndata: {json.dumps(fields, ensure_ascii=False)}\n\n"


LINES = [dict(timestamp="2025-01-31T09:15:02.000000", level="INFO", message=f"行 {i}") for i in range(1, 7)]
LINES[2] = dict(LINES[2], message="Epoch [1/2] started.", stage="epoch_start", metrics={"epoch": 1, "total_epochs": 2})
LINES[3] = dict(LINES[3], message="Validation", stage="validation", metrics={"val_loss": 0.5, "val_acc": 75.0})
LINES[4] = dict(LINES[4], level="WARNING", message="\x1b[31mwatch out")
FINAL = {"status": "completed", "message": "任务结束"}
RECORD = {"task_id": "t 1/ä", "task_type": "training", "status": "completed", "message": "训练完成", "progress": 100,
          "device": "cpu", "priority": 5, "created_at": "2025-01-31T09:15:02.000000",
          "updated_at": "2025-01-31T09:15:03.000000", "current_epoch": 2, "total_epochs": 2, "latest_metrics": None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.path.endswith("/logs"):
            return self.logs()
        if self.path.startswith("/api/v2/tasks?"):
            return self.answer(200, {"training_tasks": [RECORD], "inference_tasks": [], "total_training": 1,
                                     "total_inference": 0})
        if self.path.startswith("/api/v2/tasks/gone"):
            return self.answer(404, {"detail": "任务 gone 不存在"})
        if self.path.startswith("/api/v2/tasks/"):
            return self.answer(200, RECORD)
        if self.path == "/api/v1/info":
            return self.answer(500, b"Internal Server Error")
        if self.path == "/api/v1/health":
            return self.answer(200, {"status": "healthy", "version": "9"})
        return self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, body))
        if self.path == "/api/v2/training/start":
            return self.answer(422, {"detail": [
                {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {}},
                {"type": "greater_than_equal", "loc": ["body", "batch_size"], "msg": "Input should be too", "input": 0}]})
        return self.answer(200, {"status": "success", "message": "好", "task_id": "x"})

    def logs(self):
        """Sends two lines a connection in chunks that are cut anywhere, then breaks off."""
        after = int(self.headers.get("Last-Event-ID") or 0)
        text = "".join(event(i, **LINES[i - 1]) for i in range(after + 1, min(after + 2, len(LINES)) + 1))
        whole = after + 2 >= len(LINES)
        data = (": ping\n\nretry: 10\n\n" + text + (event(99, **FINAL) if whole else "")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(data), 7):
            piece = data[i:i + 7]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True


class Stub(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()
