"""A judge on a port: a program of its own, so that it can die in the middle of a run.

    python judge_server.py PORT [ANSWERS]

It finds the response between its fences, and its verdict depends on that text alone. After ANSWERS
answers the process ends in the middle of the next request, as a killed one does.
"""

import hashlib
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

LABELS = ("helpful", "needlessly cautious", "unhelpful")
RESPONSE = re.compile(r"<<<response (\w+)>>>\n(.*)\n<<<end of response \1>>>", re.DOTALL)


class Judge(BaseHTTPRequestHandler):
    """Answers ``/v1/chat/completions``."""

    protocol_version = "HTTP/1.1"
    left = int(sys.argv[2]) if len(sys.argv) > 2 else None
    lock = Lock()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Judge.lock:
            if Judge.left is not None:
                if Judge.left == 0:
                    os._exit(9)
                Judge.left -= 1
        mark, text = RESPONSE.search(body["messages"][1]["content"]).groups()
        label = LABELS[hashlib.sha256(text.encode()).digest()[0] % len(LABELS)]
        verdict = json.dumps({"id": mark[:6], "reason": "as it is", "label": label})
        answer = json.dumps({
            "choices": [{"message": {"content": verdict}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Takes its port again at once after another process died on it."""

    daemon_threads = True
    allow_reuse_address = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Judge)
    print("ready", flush=True)
    server.serve_forever()
