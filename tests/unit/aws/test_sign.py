from kinstream.aws.sign import Signer
from kinstream.credentials import Credentials

OLD = Credentials("OLD", "old-secret")
NEW = Credentials("NEW", "new-secret", "token")
LAST_SECOND_OF_A_DAY = 1_440_979_199.0


def authorization(signer: Signer, credentials: Credentials, now: float) -> str:
    headers = dict(signer.sign(credentials, now, host="h", target="t", content_type="c", body=b""))
    return headers["authorization"]


def test_midnight_utc_changes_the_key_of_the_day() -> None:
    signer = Signer("us-east-1")
    before = authorization(signer, OLD, LAST_SECOND_OF_A_DAY)
    after = authorization(signer, OLD, LAST_SECOND_OF_A_DAY + 1)
    assert "/20150830/" in before
    assert "/20150831/" in after
    assert before == authorization(Signer("us-east-1"), OLD, LAST_SECOND_OF_A_DAY)
    assert after == authorization(Signer("us-east-1"), OLD, LAST_SECOND_OF_A_DAY + 1)


def test_two_credentials_in_turn_each_sign_with_their_own_secret() -> None:
    signer = Signer("us-east-1")
    for credentials in (OLD, NEW, OLD, NEW):
        assert authorization(signer, credentials, 0) == authorization(Signer("us-east-1"), credentials, 0)


def test_session_token_is_sent_and_signed() -> None:
    headers = dict(Signer("us-east-1").sign(NEW, 0, host="h", target="t", content_type="c", body=b""))
    assert headers["x-amz-security-token"] == "token"
    assert "x-amz-security-token" in headers["authorization"]


def test_signer_shows_no_key_of_the_day() -> None:
    signer = Signer("us-east-1")
    authorization(signer, OLD, 0)
    assert repr(signer) == "Signer(region='us-east-1', service='kinesis')"
