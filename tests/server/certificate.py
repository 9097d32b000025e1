"""A server's certificate for tests, made once in a process."""

import os
import tempfile
from functools import lru_cache

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_mta.testing.tls import certificate
from twisted_mta.tls.server import ServerContext, load


@lru_cache(maxsize=1)
def server_context() -> ServerContext:
    made, key = certificate()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pair.pem")
        with open(path, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.write(made.public_bytes(Encoding.PEM))
        return load(path, path)
