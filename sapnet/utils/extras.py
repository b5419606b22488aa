"""Which extra of the distribution a library that is missing comes with."""

DISTRIBUTION = "sapnet-service"
_OWN = {"app", "worker", "sapnet", "sapnet_client", "migrations"}
_EXTRA_OF = {
    "onnxruntime": "onnx",
    "transformers": "sam2",
    "opentelemetry": "otel",
    "cvat_sdk": "cvat",
    "huggingface_hub": "hub",
    "mcp": "mcp",
    "pandas": "notebook",
    "supervision": "notebook",
    "tensorboard": "tracking",
    "mlflow": "tracking",
    "wandb": "tracking",
    "authlib": "oidc",
    "joserfc": "oidc",
}


def missing_extra(error: BaseException) -> str | None:
    """Return what to install where a library is missing; None for any other error."""
    library = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not library or library in _OWN:
        return None
    extra = _EXTRA_OF.get(library, "service")
    return f"This needs {library}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"
