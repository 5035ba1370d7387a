"""Small objects of a bucket, read with obstore.

A GET takes a third of the processor time of one through botocore's session. boto3 stays the one
that knows: where the server is, with which credentials it is asked, and what an answer that is no
success means. Without obstore, or where it cannot reach the server, boto3's session reads.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrace.limits import ANSWER_S, LEAST_BYTES_PER_S
from retrace.remote.http import (
    CONNECT_TIMEOUT_S,
    READ_BYTES,
    READ_TIMEOUT_S,
    TransientError,
    ca_bundle,
    is_transient,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Store

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([^<]+)</Code>")
WITH_BOTO3 = "reading with boto3 alone, which takes up to twice as long"


class ObstoreReader:
    """Reads objects of one bucket, from any number of threads."""

    def __init__(self, root: str, region: str, threads: int, session: Any | None) -> None:
        """`root`: address of the bucket, which a key is appended to; `session`: a session of
        botocore with credentials, None to read without any.
        """
        self.root, self.threads = root, threads
        self._has_read, self._lock = False, threading.Lock()
        self._store = self._opened(region, session)

    def _opened(self, region: str, session: Any | None) -> S3Store | None:
        """The store, None without obstore or with settings that it does not accept."""
        try:
            from obstore.auth.boto3 import Boto3CredentialProvider
            from obstore.store import S3Store

            address = self.root.rstrip("/")
            return S3Store(
                "bucket",  # only its address counts
                endpoint=address,
                aws_endpoint_url_s3=address,  # else AWS_ENDPOINT_URL_S3 had precedence
                virtual_hosted_style_request=True,
                region=region,
                skip_signature=session is None,
                credential_provider=Boto3CredentialProvider(session) if session else None,
                client_options=self._client_options(),
                retry_config={"max_retries": 0},  # downloads repeat attempts themselves
            )
        except ImportError:
            print(f"[fetch] obstore is not installed: {WITH_BOTO3}", flush=True)
        except Exception as error:
            self._give_up(error)
        return None

    def _client_options(self) -> ClientConfig:
        """Proxy, certificates and timeouts, as those of `retrace.remote.http.create_session`."""
        from botocore.httpsession import get_cert_path
        from botocore.utils import get_environ_proxies

        is_https = self.root.startswith("https:")
        options: ClientConfig = {
            "allow_http": True,
            "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
            "read_timeout": f"{READ_TIMEOUT_S}s",
            "timeout": f"{ANSWER_S + READ_BYTES // LEAST_BYTES_PER_S}s",  # of a whole object
            "pool_max_idle_per_host": str(self.threads),
        }
        proxy = get_environ_proxies(self.root).get("https" if is_https else "http")
        if proxy:
            options["proxy_url"] = proxy
        if is_https:
            bundle = ca_bundle() or get_cert_path(True)
            options["root_certificate"] = Path(str(bundle)).read_bytes()
        return options

    def _give_up(self, error: Exception) -> None:
        """Leaves all objects to boto3."""
        with self._lock:
            had_store, self._store = self._store is not None, None
        if not had_store:
            return  # another thread has said so
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"[fetch] obstore cannot read {self.root} ({reason}): {WITH_BOTO3}", flush=True)

    def read(self, key: str, size: int) -> memoryview | None:
        """The bytes of an object of `size` bytes; None where boto3 should try: it explains why.

        TransientError if another attempt may succeed.
        """
        store = self._store
        if store is None:
            return None
        import obstore

        try:
            answer = obstore.get(store, key)
            if answer.meta["size"] != size:
                return None
            content = memoryview(answer.bytes())
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            self._note(error)
            return None
        self._has_read = True
        return content

    def _note(self, error: Exception) -> None:
        """Raises TransientError where boto3 would; stops using obstore if nothing was read yet."""
        status, code = STATUS.search(str(error)), CODE.search(str(error))
        name = code[1] if code else ""
        if status and is_transient(int(status[1]), name):
            raise TransientError(f"the server answered {status[1]} {name}".rstrip()) from error
        if self._has_read and not status:
            raise _interrupted(error) from error
        if not status:
            self._give_up(error)


def _interrupted(error: Exception) -> TransientError:
    """A connection that failed: the first line of obstore's error, the others are its state."""
    if "IncompleteBody" in str(error):
        return TransientError("truncated: the connection was closed before the end")
    return TransientError(str(error).splitlines()[0])
