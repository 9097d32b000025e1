"""Receive webhooks on port 8900, and print the events whose signature is good."""

import hmac
import os
import sys
import time
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to good requests, else 401."""

    def do_POST(self) -> None:
        """Verify a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        at = self.headers["webhook-timestamp"]
        signed = f"{self.headers['webhook-id']}.{at}.".encode() + body
        ours = "v1," + b64encode(hmac.digest(SECRET, signed, "sha256")).decode()
        given = self.headers["webhook-signature"].split()
        good = any(hmac.compare_digest(ours, each) for each in given)
        good = good and abs(time.time() - int(at)) < 300
        if good:
            print(body.decode(), flush=True)
        self.send_response(204 if good else 401)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int([*sys.argv, "8900"][1])), Receiver).serve_forever()
