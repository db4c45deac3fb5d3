"""Our signatures compared with botocore's, on generated requests."""

from datetime import UTC, datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from kinstream.aws.sign import Signer
from kinstream.credentials import Credentials

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
REGION = st.from_regex(r"[a-z]{2}-[a-z]{4,9}-[1-9]", fullmatch=True)
HOST = st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{1,8}){0,3}(:[1-9][0-9]{3})?", fullmatch=True)
TARGET = st.from_regex(r"Kinesis_20131202\.[A-Z][A-Za-z]{1,30}", fullmatch=True)
KEY = st.builds(Credentials, PRINTABLE, PRINTABLE, st.none() | PRINTABLE)
NOW = st.floats(min_value=0, max_value=4_102_444_800)


def botocore_headers(
    key: Credentials, region: str, now: float, host: str, target: str, content_type: str, body: bytes
) -> dict[str, str]:
    signer = SigV4Auth(
        BotocoreCredentials(key.access_key_id, key.secret_access_key, key.session_token), "kinesis", region
    )
    request = AWSRequest(
        "POST", f"https://{host}/", headers={"Content-Type": content_type, "X-Amz-Target": target}, data=body
    )
    # The steps of add_auth, with a time of our choice instead of the wall clock's.
    request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    return {name.lower(): value for name, value in request.headers.items()} | {"host": host}


@given(KEY, REGION, NOW, HOST, TARGET, st.sampled_from(["json", "cbor"]), st.binary(max_size=300))
@example(Credentials("A", "S"), "us-east-1", 1440938160.0, "localhost:4567", "Kinesis_20131202.PutRecord", "json", b"")
def test_headers_are_botocores(
    key: Credentials, region: str, now: float, host: str, target: str, wire: str, body: bytes
) -> None:
    content_type = f"application/x-amz-{wire}-1.1"

    ours = Signer(region).sign(key, now, host=host, target=target, content_type=content_type, body=body)

    assert len(ours) == len(dict(ours))
    assert dict(ours) == botocore_headers(key, region, now, host, target, content_type, body)


@given(st.lists(st.tuples(KEY, st.integers(0, 20_000)), min_size=2, max_size=8), st.lists(st.integers(0, 7)))
def test_kept_day_key_never_serves_another_day_or_key(uses: list[tuple[Credentials, int]], order: list[int]) -> None:
    kept = Signer("eu-central-1")
    for place in order:
        key, day = uses[place % len(uses)]
        now = day * 86_400 + 86_399.0

        def sign(signer: Signer, key: Credentials = key, now: float = now) -> list[tuple[str, str]]:
            return signer.sign(key, now, host="kinesis", target="T", content_type="c", body=b"x")

        assert sign(kept) == sign(Signer("eu-central-1"))
