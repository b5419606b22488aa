"""Webhooks as they are asked for: their URL, their secret, and how they are signed."""

import base64

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.outbound import webhook_signature as signing
from app.settings import Settings
from app.webhooks import service


def test_the_conventions_own_example() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert signing.headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert "webhook-signature" not in signing.headers(None, "msg", 1, body)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "secret",
        "whsec_",
        "whsec_!!!!",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_secret_that_is_none(bad: str, client: TestClient, dataset_id: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        signing.key_of(bad)
    hook = {"url": "https://example.org/", "secret": bad}
    answer = client.post("/jobs/train", json={"dataset_id": dataset_id, "webhook": hook})
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/webhook/secret"]
    if len(bad) > 6:
        assert bad not in str(caught.value)
        assert bad not in answer.text
    with pytest.raises(ValidationError):
        Settings(_env_file=None, webhook_secret=bad or "x")  # type: ignore[call-arg]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "https://localhost/x", "http://10.1.2.3/", "ftp://example.org/", "x"],
)
def test_a_url_that_is_refused(url: str, client: TestClient, dataset_id: str) -> None:
    body = {"dataset_id": dataset_id, "webhook": {"url": url}}
    answer = client.post("/jobs/train", json=body)
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/webhook/url"]
    assert client.get("/jobs").json()["jobs"] == []
    body["webhook"] = {"url": "https://example.org/", "events": ["nothing"]}
    assert client.post("/jobs/train", json=body).status_code == 422
    with pytest.raises(ValidationError):
        Settings(_env_file=None, webhook_url="example.org")  # type: ignore[call-arg]


def test_the_delay_doubles_up_to_a_limit_with_jitter(settings: Settings) -> None:
    for tries, full in ((1, 5), (2, 10), (10, 2560), (14, 6 * 3600), (1000, 6 * 3600)):
        found = [service._delay(tries, settings).total_seconds() for _ in range(200)]
        assert full / 2 <= min(found) < full * 0.6
        assert full * 0.9 < max(found) <= full
