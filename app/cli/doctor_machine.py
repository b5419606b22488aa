"""The doctor's checks of this machine: disks, ports, GPUs and weights."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from app.jobs import sam_checkpoints
from app.observability.gpu import Gpus
from app.settings import Settings
from sapnet.proposals.sam.checkpoints import DEFAULT, type_of
from sapnet.proposals.sam.sam2_config import WEIGHTS
from sapnet.utils.files import file_sha256

LEAST_DISK_GB = 5
_HASH_IN_NAME = re.compile(r"[-_]([0-9a-f]{6,64})\.pth?$")
TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "gpus": gpus, "threads": torch.get_num_threads()}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        ok: whether it passed; None for what is worth knowing and no failure.
        state: what was seen, for people.
        remedy: what to do about it.
    """

    name: str
    ok: bool | None
    state: str
    remedy: str = ""


def disks(settings: Settings) -> Iterator[Check]:
    """Check the data folder's disk, and the storage folder's where that is another one."""
    places = {"disk": settings.folder()}
    storage = Path(settings.storage)  # of S3 there is no such folder
    if storage.is_dir() and storage.stat().st_dev != settings.folder().stat().st_dev:
        places["storage's disk"] = storage
    for name, folder in places.items():
        free = shutil.disk_usage(folder).free / 1e9
        remedy = f"{LEAST_DISK_GB} GB or more are wise; SAPNET_DATA_DIR may name another disk"
        yield Check(name, free >= LEAST_DISK_GB, f"{free:.1f} GB free at {folder}", remedy)


def ports(settings: Settings) -> Iterator[Check]:
    """Check that each port is free, or used by this service."""
    yield _port("port", settings.host, settings.port, "/healthz", "SAPNET_PORT")
    if settings.worker_metrics_port is not None:
        number = settings.worker_metrics_port
        yield _port("metrics port", settings.host, number, "/", "SAPNET_WORKER_METRICS_PORT")


def _port(name: str, host: str, port: int, path: str, setting: str) -> Check:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if _is_ours(host, port, path):
            return Check(name, True, f"{host}:{port}, where this service answers")
        words = f"{host}:{port}: {error.strerror}"
        return Check(name, False, words, f"end what is there, or set {setting} to another one")
    return Check(name, True, f"{host}:{port} is free")


def _is_ours(host: str, port: int, path: str) -> bool:
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{near}]" if ":" in near else near
    with suppress(OSError, ValueError):
        with urllib.request.urlopen(f"http://{shown}:{port}{path}", timeout=3) as answer:
            body = answer.read(1 << 20)
        return body == b'{"status":"ok"}' or b"sapnet_worker_claims" in body
    return False


def torch_and_gpus() -> Iterator[Check]:
    """Check torch, and compare its GPUs with those of the driver.

    Torch is loaded in a process of its own, since this one stays light. The comparison tells a CPU
    build of torch from a machine without any GPU.
    """
    gpus = [metric for metric in Gpus().collect() if metric.name == "sapnet_gpu_memory_bytes"]
    driver = [
        f"{sample.labels['name']} ({sample.value / 2**30:.0f} GiB)"
        for metric in gpus
        for sample in metric.samples
    ]
    done = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        yield Check("torch", False, "".join(last), "pip install --force-reinstall torch")
        return
    state = json.loads(done.stdout)
    yield Check("torch", True, f"{state['version']}, {state['threads']} threads")
    if state["gpus"]:
        yield Check("GPU", True, ", ".join(driver or state["gpus"]))
    elif driver:
        remedy = "this torch was built without CUDA, or for a newer driver: see pytorch.org"
        yield Check("GPU", False, f"{', '.join(driver)}, and torch sees none", remedy)
    else:
        remedy = "the presets for CPUs (cpu, demo) train in minutes to hours"
        yield Check("GPU", None, "none", remedy)


def backbone(settings: Settings) -> Check:
    """Check the file of backbone weights that the settings name."""
    name, path = "backbone weights", settings.backbone_weights
    if path is None:
        remedy = "SAPNET_BACKBONE_WEIGHTS may name a torchvision state dict of this machine"
        return Check(name, None, "torchvision's download, else random", remedy)
    return _weights(name, path, "SAPNET_BACKBONE_WEIGHTS")


def sam(settings: Settings) -> Iterator[Check]:
    """Check each SAM checkpoint that the settings name: there, whole, and of which type."""
    checkpoints = sam_checkpoints.configured(settings)
    if not checkpoints:
        remedy = "set SAPNET_SAM_CHECKPOINT to sam_vit_b_01ec64.pth or its like"
        yield Check("SAM checkpoint", None, "none set: fetched when a job asks for SAM", remedy)
    for name, path in checkpoints.items():
        setting = "SAPNET_SAM_CHECKPOINT" + ("" if name == DEFAULT else "S")
        yield _sam(f"SAM checkpoint {name!r}", path, setting)


def _sam(name: str, path: Path, setting: str) -> Check:
    weights = path / WEIGHTS if path.is_dir() else path
    check = _weights(name, weights, setting)
    if not check.ok:
        return check
    try:
        family, model_type = type_of(path)
    except (OSError, ValueError) as error:
        remedy = "name a file with a SAM of segment-anything's layout, or a SAM 2's folder"
        return Check(name, False, f"{path}: {error}", remedy)
    if family == "sam2" and importlib.util.find_spec("transformers") is None:
        remedy = "pip install 'sapnet-service[sam2]'"
        return Check(name, False, f"SAM 2 {model_type}, which needs transformers", remedy)
    shown = model_type if family == "sam" else f"SAM 2 {model_type}"
    return replace(check, state=f"{shown}, {check.state}")


def _weights(name: str, path: Path, setting: str) -> Check:
    """There, and whole: files of torch's hub have the beginning of their SHA-256 in their name."""
    try:
        digest = file_sha256(path)
    except OSError as error:
        return Check(name, False, f"{path}: {error.strerror}", f"{setting} must name a file")
    named_hash = _HASH_IN_NAME.search(path.name)
    if named_hash and not digest.startswith(named_hash[1]):
        remedy = f"fetch {path.name} again: its content is not what its name says"
        return Check(
            name, False, f"{path}: SHA-256 begins with {digest[: len(named_hash[1])]}", remedy
        )
    checked = "whole" if named_hash else "its name holds no digest to check"
    return Check(name, True, f"{path}, {path.stat().st_size / 1e6:.0f} MB, {checked}")


def tracing(settings: Settings) -> Iterator[Check]:
    """Check that tracing is installed where the settings ask for it."""
    if settings.otel_endpoint is not None:
        installed = importlib.util.find_spec("opentelemetry.sdk") is not None
        state = f"to {settings.otel_endpoint}"
        yield Check("tracing", installed, state, "pip install 'sapnet-service[otel]'")
