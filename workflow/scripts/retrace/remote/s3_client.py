"""The client of an S3 server: with the user's AWS configuration, or anonymous and without any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from retrace.errors import ConfigError, FetchError
from retrace.limits import LISTING_PAGE_BYTES
from retrace.reading import PEEKED_BYTES
from retrace.redaction import WITH_CREDENTIALS, has_credentials, hide
from retrace.remote.http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TransientError, pieces
from retrace.remote.store import FetchSettings

REGION = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
"""The name of a region is part of host names."""
LISTING = b"ListBucketResult"
"""What the first element of a listing is called; a page to log in may be XML, too."""
DEFAULT_REGION = "us-east-1"
OWN_CONFIGURATION = "the AWS configuration (environment, ~/.aws/config, ~/.aws/credentials)"


def create_client(settings: FetchSettings) -> tuple[Any, Any]:
    """A boto3 client, anonymous unless `unsigned` is false, and its session of botocore.

    An anonymous client reads no AWS configuration, so that a broken one does not matter. With an
    `endpoint_url`, the bucket is part of the path (path-style addressing). ConfigError for a wrong
    `endpoint_url` or `region`, FetchError for a signed client without usable credentials.
    """
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    if has_credentials(settings.endpoint_url or ""):
        raise ConfigError(f"`endpoint_url: {settings.endpoint_url}`: {WITH_CREDENTIALS}")
    region = _region(settings)
    variables = _no_configuration() if settings.unsigned else None
    session = botocore.session.Session(session_vars=variables)
    # Parsing dates takes a third of the time of a listing, and we do not need them.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    config = Config(
        signature_version=UNSIGNED if settings.unsigned else None,
        max_pool_connections=settings.threads,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": settings.retries},
        s3=_addressing(settings),
    )
    try:
        with naming_the_cause(settings.endpoint_url or "S3"):
            client = boto3.Session(botocore_session=session).client(
                "s3", endpoint_url=settings.endpoint_url, region_name=region, config=config
            )
            client.meta.events.register(
                "before-send.s3.ListObjectsV2", partial(_bounded_answer, client)
            )
            if not settings.unsigned:
                client.generate_presigned_url("list_buckets")  # needs credentials, asks no server
                _credentials(session)
            return client, session
    except ValueError as error:
        is_ours = settings.endpoint_url and "endpoint" in str(error).lower()
        cause = "`endpoint_url` in config/config.yaml" if is_ours else OWN_CONFIGURATION
        raise ConfigError(f"{error}; correct {cause}") from error


def _credentials(session: Any) -> Any:
    """The current credentials, which are hidden in all output from now on."""
    credentials = session.get_credentials().get_frozen_credentials()
    hide(credentials.access_key, credentials.secret_key, credentials.token)
    return credentials


def signature(session: Any, address: str, region: str) -> dict[str, str]:
    """The headers that sign a GET request; FetchError without usable credentials."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("GET", address)
    with naming_the_cause(address):
        S3SigV4Auth(_credentials(session), "s3", region).add_auth(request)
    return dict(request.headers.items())


def _bounded_answer(client: Any, request: Any, **_: Any) -> Any:
    """The answer to a request for a listing, whose body botocore would read whatever its size."""
    from botocore.awsrequest import AWSResponse
    from botocore.exceptions import ConnectionClosedError
    from urllib3.exceptions import HTTPError

    server = str(client.meta.endpoint_url)
    request.stream_output = True
    answer = client._endpoint.http_session.send(request)
    try:
        body = b"".join(pieces(answer, LISTING_PAGE_BYTES, f"the listing of {server}"))
    except (HTTPError, ConnectionError, TimeoutError, TransientError) as error:
        raise ConnectionClosedError(endpoint_url=server, error=error, request=request) from error
    finally:
        answer.raw.close()
    if answer.status_code == 200 and LISTING not in body[:PEEKED_BYTES]:
        raise no_listing(server, "its answer is no list of objects")
    return AWSResponse(answer.url, answer.status_code, answer.headers, _Received(body))


def no_listing(server: str, why: object) -> FetchError:
    """The error for an answer that is no listing of an S3 server."""
    return FetchError(
        f"{server} does not answer like an S3 server ({why}); correct `endpoint_url` in "
        "config/config.yaml, or log in to the network"
    )


class _Received:
    """The body of an answer, in the form that botocore reads."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        """The body."""
        yield self._body


def _addressing(settings: FetchSettings) -> Any:
    """How URLs are made. An anonymous client states what it would read from the environment."""
    style = {"addressing_style": "path" if settings.endpoint_url else "auto"}
    return style | ({"us_east_1_regional_endpoint": "legacy"} if settings.unsigned else {})


def _no_configuration() -> dict[str, Any]:
    """Variables of a session that ignores files and environment, but for a CA bundle."""
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

    values: dict[str, Any] = dict.fromkeys(("config_file", "credentials_file"), os.devnull)
    values["ignore_configured_endpoint_urls"] = True
    return {
        name: (None, None, values.get(name, default), conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
        if name != "ca_bundle"
    }


def _region(settings: FetchSettings) -> str:
    """The region of the settings, else of the environment, else us-east-1.

    An anonymous client ignores a malformed AWS_DEFAULT_REGION; otherwise ConfigError names where
    the region is from.
    """
    origin, region = "`region`", settings.region
    if not region:
        origin, region = "AWS_DEFAULT_REGION", os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        return DEFAULT_REGION
    if REGION.fullmatch(region):
        return region
    if settings.unsigned and not settings.region:
        return DEFAULT_REGION
    raise ConfigError(
        f"{origin} is {region!r}, which is no name of a region; give letters, digits and hyphens, "
        "such as us-east-1"
    )


@contextmanager
def naming_the_cause(server: str) -> Iterator[None]:
    """Turns errors of botocore into FetchError that names what failed: connection or credentials.

    Errors that botocore derives from ValueError, such as a malformed address, pass.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ConnectionError,
        EndpointProviderError,
        HTTPClientError,
    )

    try:
        yield
    except EndpointProviderError as error:
        raise ConfigError(
            f"{server} is no address of a server ({error}); write `endpoint_url` as https://HOST "
            "or http://HOST:PORT"
        ) from error
    except (ConnectionError, HTTPClientError) as error:
        raise FetchError(
            f"{server} does not answer ({error}); check the internet access and `endpoint_url` in "
            "config/config.yaml, or use a mirror (docs/how-to/offline.md)"
        ) from error
    except BotoCoreError as error:
        if isinstance(error, ValueError):
            raise
        raise FetchError(
            f"no access with credentials to {server}: {error}; correct {OWN_CONFIGURATION}, or "
            "set `unsigned: true` for a public bucket"
        ) from error
