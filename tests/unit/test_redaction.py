"""Credentials never show in messages, files and what a program prints; all other text stays."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace import redaction
from retrace.config.dataset_model import DatasetFile
from retrace.config.schema import check
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError, FetchError
from retrace.files import atomic_write
from retrace.limits import MESSAGE_CHARACTERS
from retrace.redaction import HIDDEN, has_credentials, hide, redacted
from retrace.remote.objects import open_folder
from retrace.remote.s3_client import create_client
from retrace.remote.store import FetchSettings

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = st.text(string.ascii_letters + string.digits + "+/=-_.~", min_size=8, max_size=40)
IN_ADDRESS = st.text(string.ascii_letters + string.digits + "-_.~%:#?,;", min_size=4)

PLACES = (
    "https://host/key?X-Amz-Credential={}&X-Amz-Date=20260101",
    "Max retries exceeded with url: /b/k?list=1&X-Amz-Signature={} (Caused by reset)",
    "/b/k?AWSAccessKeyId={}&Expires=9",
    "https://x.org/f?sig={}",
    "https://x.org/f?access_token={}&a=1",
    "https://x.org/f?download=1&key={}",
    "Authorization: AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/s3/aws4_request",
    "{{'Authorization': 'Bearer {}', 'Accept': '*/*'}}",
    "x-amz-security-token: {}",
    "Cookie: session={}",
    "<Error><AWSAccessKeyId>{}</AWSAccessKeyId></Error>",
    '{{"aws_secret_access_key": "{}"}}',
    "AWS_SESSION_TOKEN={}",
    "password: {}",
)
"""Texts of servers, libraries and configurations with a secret in them."""
HARMLESS = (
    "s3://open-neurodata/funke/zfinch/train_0.zarr at https://s3.amazonaws.com",
    "http://127.0.0.1:9000/b/a@b.zarr",
    "zarr://s3://bucket/user@lab/a.zarr",
    "file:///home/a@b/x.zarr",
    "the secret key does not fit the access key (SignatureDoesNotMatch) while listing",
    "https://zenodo.org/records/1/files/a.zip?download=1",
    "ask somebody@example.org",
    "precomputed://gs://neuroglancer/v1/layer#x",
)


@pytest.mark.parametrize("place", PLACES)
@given(secret=SECRET)
def test_a_secret_is_hidden_wherever_it_usually_is(place: str, secret: str) -> None:
    text = place.format(secret)
    shown = redacted(text)
    assert secret.strip("/") not in shown.replace(HIDDEN, "")
    assert HIDDEN in shown
    assert redacted(shown) == shown


@given(user=IN_ADDRESS, password=IN_ADDRESS)
def test_a_user_and_a_password_in_an_address_are_hidden(user: str, password: str) -> None:
    address = f"https://{user}:{password}@host.org/a.zarr"
    assert has_credentials(address)
    assert redacted(f"cannot read {address}") == f"cannot read https://{HIDDEN}@host.org/a.zarr"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert redacted(text) == text
    assert not has_credentials(text)


def test_the_files_of_this_repository_stay() -> None:
    """What a crate or bundle copies of them, and what the documentation quotes."""
    files = [p for part in ("config", "docs", "profiles") for p in (REPOSITORY / part).rglob("*")]
    texts = {p: p.read_text() for p in files if p.suffix in (".yaml", ".json", ".md")}
    assert len(texts) > 50
    assert [path for path, text in texts.items() if redacted(text) != text] == []


def test_known_secrets_are_hidden_in_any_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setenv("LAB_API_TOKEN", "abc/def+ghi")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/home/x/credentials")
    monkeypatch.setenv("http_proxy", "http://me:long-password@proxy:1")
    hide("from/a+file", None, "ab")
    text = "abc/def+ghi abc%2Fdef%2Bghi from/a+file from%2Fa%2Bfile long-password ab"
    assert redacted(text) == " ".join([HIDDEN] * 5 + ["ab"])
    assert redacted("/home/x/credentials") == "/home/x/credentials"
    assert str(FetchError("refused abc/def+ghi")) == f"refused {HIDDEN}"
    assert atomic_write(tmp_path / "x", "a abc/def+ghi").read_text() == f"a {HIDDEN}"


@pytest.mark.parametrize("excess", [1, 1000, 16_000, 60_000, 70_000, 200_000])
def test_of_a_long_message_both_ends_are_shown(excess: int) -> None:
    message = str(ConfigError("begin " + "x" * (MESSAGE_CHARACTERS - 10 + excess) + " end"))
    assert message.startswith("begin xxx") and message.endswith("xxx end")
    assert MESSAGE_CHARACTERS <= len(message) <= MESSAGE_CHARACTERS + len(" … ")


@pytest.mark.parametrize("between", [0, 20_000, 100_000])
@pytest.mark.parametrize("shift", range(0, 40, 3))
def test_a_long_message_is_cut_after_its_secrets_are_hidden(shift: int, between: int) -> None:
    address = "s3://someone:SuperSecretPassword@host/x"
    half = MESSAGE_CHARACTERS // 2
    text = (
        "a " * (half // 2 - shift) + address + " b" * between + address + " c" * (half // 2 - shift)
    )
    message = str(ConfigError(text))
    assert len(message) < 1.1 * MESSAGE_CHARACTERS
    assert message.startswith("a a") and message.endswith("c c")
    pieces = {"SuperSecretPassword"[i : i + 4] for i in range(16)} | {"someone"}
    assert not any(piece in message for piece in pieces)


def test_a_program_prints_no_secret_also_in_a_traceback() -> None:
    code = (
        "from retrace.errors import run\n"
        "def main():\n"
        "    print('https://a:b@host')\n"
        "    raise ValueError('token CANARY-TOKEN at https://x/y?signature=CANARY-SIGNATURE')\n"
        "run(main)\n"
    )
    scripts = REPOSITORY / "workflow" / "scripts"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(scripts), "LAB_TOKEN": "CANARY-TOKEN"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, f"https://{HIDDEN}@host\n")
    assert "ValueError" in done.stderr and "CANARY" not in done.stderr


def test_credentials_far_down_in_settings_are_found_at_once() -> None:
    content: dict[str, Any] = {"address": "https://me:CANARY@host/x.zarr"}
    for _ in range(90):
        content = {"inner": content}
    with pytest.raises(ConfigError, match=r"inner\.inner\.address: ") as caught:
        check(WorkflowConfig, content, "config")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["https://me:CANARY@host/x.zarr", "https://host/x.zarr?X-Amz-Signature=CANARY"]
)
def test_addresses_with_credentials_are_refused_before_anything_records_them(address: str) -> None:
    volume = {"raw": {"path": address}}
    dataset = {"name": "mine", "voxel_size_nm": [1, 1, 1], "volumes": {"a": volume}}
    fetch = {"bucket": "b", "prefix": "p", "endpoint_url": address}
    for refused in (
        lambda: check(DatasetFile, dataset, "mine.yaml"),
        lambda: check(WorkflowConfig, {"endpoint_url": address}, "config"),
        lambda: check(FetchSettings, fetch, "--settings"),
        lambda: create_client(FetchSettings(**fetch)),
        lambda: open_folder(address, None, True, 1),
    ):
        with pytest.raises(ConfigError, match="a user, a password or a signature") as caught:
            refused()
        assert "CANARY" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"mine\.yaml: volumes\.a\.raw\.path: "):
        check(DatasetFile, dataset, "mine.yaml")
