r"""A teacher to rehearse distilling with: an OpenAI-compatible endpoint without a model.

It answers prompts of one family of the microworld with a chain of thought, and one chain in ten
misjudges, so that there is something to filter::

    python examples/microworld_teacher.py --family value --port 8123
    safeladder data distill prompts.yaml --teacher http://127.0.0.1:8123/v1 --model rehearsal \
        --n 2 --out chains.jsonl

It knows the answers to the first prompts of the family's training split by their text, which is
what makes it a rehearsal; prompts with images look alike, so those families are left out. Equal
seeds give equal replies. Tokens are words.
"""

from __future__ import annotations

import argparse
import json
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from safeladder.data.microworld import demonstrate, family_prompts
from safeladder.data.microworld.chains import STRATEGIES, with_chain
from safeladder.types import Prompt

NOISE, KNOWN = 0.1, 2000


def reply(prompt: Prompt, seed: int) -> str:
    """A chain of a strategy drawn from the seed, and an answer."""
    rng = random.Random(f"{prompt.id} {seed}")
    strategy = rng.choice(STRATEGIES[prompt.meta["family"]])
    misjudges = rng.random() < NOISE
    shown = with_chain(demonstrate(prompt, "ideal", rng), strategy, rng, misjudges)
    return shown.messages[-1].text


class Teacher(BaseHTTPRequestHandler):
    """Answers ``POST /v1/chat/completions``."""

    known: dict[str, Prompt]

    def do_POST(self) -> None:
        """Reply, or say that the question is unknown."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        if question not in self.known:
            self._send(400, {"error": {"message": f"I do not know {question!r}"}})
            return
        words = reply(self.known[question], body.get("seed", 0)).split()
        said = words[:body.get("max_tokens", len(words))]
        self._send(200, {
            "choices": [{"message": {"role": "assistant", "content": " ".join(said)},
                         "finish_reason": "stop" if said == words else "length"}],
            "usage": {"prompt_tokens": len(question.split()), "completion_tokens": len(said)}})

    def _send(self, status: int, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a client opens."""

    request_queue_size = 128


def main() -> None:
    """Serve until interrupted; port 0 takes a free one. The first line says which."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="value",
                        choices=["logic", "arithmetic", "instruction", "knowledge", "value"])
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    prompts = family_prompts(arguments.family, "train", KNOWN)
    Teacher.known = {prompt.messages[0].text: prompt for prompt in prompts}
    server = Server(("127.0.0.1", arguments.port), Teacher)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
