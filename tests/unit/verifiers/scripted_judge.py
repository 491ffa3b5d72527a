"""A judge over real HTTP whose replies are a function of the request."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = re.compile(r"<<<(?P<name>[^<>]+) (?P<mark>[0-9a-f]{16})>>>\n(?P<text>.*?)\n"
                   r"<<<end of (?P=name) (?P=mark)>>>", re.DOTALL)


class Seen:
    """A request as a judge may read it: only fences with the number of the system prompt count."""

    def __init__(self, body):
        self.body = body
        self.system = body["messages"][0]["content"]
        content = body["messages"][1]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        self.images = [part for part in parts if part["type"] == "image_url"]
        self.text = "".join(part["text"] for part in parts if part["type"] == "text")
        self.mark = re.search(r"\b[0-9a-f]{16}\b", self.system)[0]
        self.pieces = {found["name"]: found["text"] for found in PIECE.finditer(self.text)
                       if found["mark"] == self.mark}
        self.id = self.mark[:6]

    def verdict(self, label, reason="because"):
        return json.dumps({"id": self.id, "reason": reason, "label": label})


@contextmanager
def scripted_judge(reply):
    """Serve ``reply(Seen) -> text``, a status, or (text, finish_reason); yield (url, requests)."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            one = Seen(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            seen.append(one)
            said = reply(one)
            if isinstance(said, int):
                self._answer(said, {"error": {"message": f"status {said}"}})
                return
            text, reason = said if isinstance(said, tuple) else (said, "stop")
            self._answer(200, {
                "choices": [{"message": {"content": text}, "finish_reason": reason}],
                "usage": {"prompt_tokens": 50, "completion_tokens": 7}})

        def _answer(self, status, value):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
