"""OpenTelemetry, where SAPNET_OTEL_ENDPOINT names a collector; nothing of it is loaded otherwise.

FastAPI traces requests by itself once there is a provider. Celery is instrumented: a job's message
carries the trace of the request that asked for it to the worker's span. Statements are traced by
SQLAlchemy's own events (the instrumentation that there is does not know SQLAlchemy 2.1).
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from app.settings import Settings

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor


def start(settings: Settings, service: str) -> "list[Processor]":
    """Begin to trace this process, before its engine is made.

    Returns:
        What to add to its log lines: the ids of the current span; nothing where tracing is off.

    Raises:
        ModuleNotFoundError: tracing is wanted and not installed.
    """
    if settings.otel_endpoint is None:
        return []
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        words = "SAPNET_OTEL_ENDPOINT is set, and OpenTelemetry's SDK is not installed"
        raise ModuleNotFoundError(words, name="opentelemetry")  # see sapnet.utils.extras
    from opentelemetry import trace

    if not hasattr(trace.get_tracer_provider(), "add_span_processor"):  # the first time
        _install(settings.otel_endpoint.rstrip("/"), service)
    return [_ids]


def _install(endpoint: str, service: str) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"sapnet-{service}"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _trace_statements(provider)
    CeleryInstrumentor().instrument()
    if service == "worker":
        _flush_after_tasks(provider)


def _trace_statements(provider: Any) -> None:
    """A span a statement, without its parameters: they are the users' own."""
    from opentelemetry.trace import SpanKind, StatusCode

    tracer = provider.get_tracer("sapnet")

    def begin(
        connection: Connection,
        _cursor: Any,
        statement: str,
        _params: Any,
        context: Any,
        _many: bool,
    ) -> None:
        name = statement.split(None, 1)[0].upper()
        about = {"db.system.name": connection.dialect.name, "db.query.text": statement}
        context.span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=about)

    def end(_conn: Any, _cursor: Any, _statement: str, _params: Any, context: Any, _: bool) -> None:
        context.span.end()

    def fail(failed: ExceptionContext) -> None:
        if span := getattr(failed.execution_context, "span", None):
            span.set_status(StatusCode.ERROR, type(failed.original_exception).__name__)
            span.end()

    event.listen(Engine, "before_cursor_execute", begin)
    event.listen(Engine, "after_cursor_execute", end)
    event.listen(Engine, "handle_error", fail)


def _flush_after_tasks(provider: Any) -> None:
    """Celery's child ends after each task, without the handlers that would send what is left."""
    from celery.signals import task_postrun

    def flush(**_: Any) -> None:
        provider.force_flush(5_000)

    task_postrun.connect(flush, weak=False)


def _ids(_logger: Any, _method: str, event: "EventDict") -> "EventDict":
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
