"""OpenTelemetry, where SAPNET_OTEL_ENDPOINT names a collector; nothing of it is loaded otherwise.

FastAPI traces requests by itself once there is a provider; SQLAlchemy and Celery are instrumented,
and a job's message carries the trace of the request that asked for it to the worker's span.
"""

import importlib.util
from typing import Any

from structlog.typing import EventDict, Processor

from app.settings import Settings


def start(settings: Settings, service: str) -> list[Processor]:
    """Begin to trace this process, before its engine is made. What to add to its log lines: the
    ids of the span under way; nothing where tracing is off.

    Raises RuntimeError where it is wanted and not installed.
    """
    if settings.otel_endpoint is None:
        return []
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        raise RuntimeError(
            "SAPNET_OTEL_ENDPOINT is set and OpenTelemetry is not installed: "
            "pip install 'sapnet-service[otel]'"
        )
    from opentelemetry import trace

    if not hasattr(trace.get_tracer_provider(), "add_span_processor"):  # the first time
        _install(settings.otel_endpoint.rstrip("/"), service)
    return [_ids]


def _install(endpoint: str, service: str) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"sapnet-{service}"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    SQLAlchemyInstrumentor().instrument()
    CeleryInstrumentor().instrument()
    if service == "worker":
        _flush_after_tasks(provider)


def _flush_after_tasks(provider: Any) -> None:
    """Celery's child ends after each task, without the handlers that would send what is left."""
    from celery.signals import task_postrun

    def flush(**_: Any) -> None:
        provider.force_flush(5_000)

    task_postrun.connect(flush, weak=False)


def _ids(_logger: Any, _method: str, event: EventDict) -> EventDict:
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
