"""What this process counts about itself, for `GET /metrics`."""

from prometheus_client import Counter, Histogram

_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Counter("sapnet_http_requests", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "sapnet_http_request_seconds",
    "From a request to the headers of its answer.",
    ["method", "route", "status"],
    buckets=_FINE,
)
PREDICT_SECONDS = Histogram(
    "sapnet_predict_seconds",
    "One prediction, once it has its turn; `cold` loads the model first.",
    ["model"],
    buckets=_LONG,
)
PREDICT_WAIT_SECONDS = Histogram(
    "sapnet_predict_wait_seconds", "Waiting for one's turn to predict.", buckets=_LONG
)
