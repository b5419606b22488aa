"""The service beside the least that could do the same: its import, streams, and predictions."""

import http.client
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from comparison import Row, compare, row
from load import process
from PIL import Image as PilImage
from pycocotools import mask as coco_mask
from sqlalchemy import insert, update

from app.db import migrate as schema
from app.db.models import Dataset, DatasetStatus, Job, JobState, Model, PseudoMask
from app.db.session import Database
from app.masks import stream
from app.settings import Settings
from app.storage.store import make_storage
from sapnet.config.resolve import resolve_config
from sapnet.data.images import read_rgb
from sapnet.data.synthetic import make_scenes
from sapnet.segmenters.checkpoint import Predictor, load_predictor, save_artifact
from sapnet.training.model import build_model

IMPORT_SECONDS, IMPORT_MB = 0.8, 150
IMPORT = """
import sys, time
began = time.perf_counter()
import app.main
seconds = time.perf_counter() - began
assert "torch" not in sys.modules
line = next(x for x in open("/proc/self/status") if "VmHWM" in x)
print(seconds, int(line.split()[1]) / 1024)
"""
EMPTY = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
app = FastAPI()
@app.get("/")
def same(size: int, chunk: int = 1 << 20):
    part = b"x" * chunk
    parts = [part] * (size // chunk) + [part[: size % chunk]]
    return StreamingResponse(iter(parts), media_type="application/x-ndjson")
"""


def imported(rounds: int) -> list[Row]:
    """Fresh processes against the bars that were set."""
    found = []
    for _ in range(rounds):
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, memory = map(float, done.stdout.split())
        found.append((seconds, memory))
    seconds_row = row(
        "import app.main: time",
        [(1000 * seconds, 1000 * IMPORT_SECONDS) for seconds, _ in found],
        unit="ms",
        against="the bar",
        goal=1,
    )
    memory_row = row(
        "import app.main: peak memory",
        [(memory, IMPORT_MB) for _, memory in found],
        unit="MiB",
        against="the bar",
        goal=1,
    )
    return [seconds_row, memory_row]


def fill(settings: Settings, masks: int) -> str:
    """A job that is done, with so many masks, stored as a worker stores them; its id."""
    database = Database(settings.database)
    schema.upgrade(database)
    draw = np.random.default_rng(0)
    rles = []
    for _ in range(200):
        y, x = np.mgrid[:480, :640]
        cy, cx, ry, rx = draw.uniform((0, 0, 5, 5), (480, 640, 80, 80))
        pixels = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        rle = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
        rles.append({"size": [480, 640], "counts": rle["counts"].decode()})
    with database.begin() as session:
        dataset = Dataset(
            name="many",
            status=DatasetStatus.READY,
            images=1,
            annotations=masks,
            report={},
            document_sha="0" * 64,
        )
        session.add(dataset)
        session.flush()
        job = Job(
            dataset_id=dataset.id,
            state=JobState.SUCCEEDED,
            method="consensus",
            preset="cpu",
            seed=0,
            request={},
        )
        session.add(job)
        session.flush()
        job_id = job.id
    rows = [
        {
            "job_id": job_id,
            "annotation_id": n,
            "image_id": n // 7,
            "category_id": n % 80,
            "segmentation": rles[n % len(rles)],
            **dict(zip("xywh", draw.uniform(0, 200, 4).round(1).tolist(), strict=True)),
            "area": float(n % 9000),
            "quality": round(float(draw.uniform()), 4),
            "source": "refined",
            "extra": None,
        }
        for n in range(masks)
    ]
    path = settings.folder("uploads") / "masks.ndjson"
    stream.write(path, rows)
    sha = make_storage(settings).put_file(path, move=True)
    with database.begin() as session:
        for start in range(0, masks, 10_000):
            session.execute(insert(PseudoMask), rows[start : start + 10_000])
        session.execute(update(Job).values(masks_sha=sha))
    database.dispose()
    return job_id


def fetch(port: int, path: str) -> int:
    """Bytes of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Accept": "application/x-ndjson"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    size = 0
    buffer = bytearray(1 << 20)
    while count := answer.readinto(buffer):
        size += count
    connection.close()
    return size


def add_model(settings: Settings, job_id: str) -> tuple[str, Predictor]:
    """An untrained segmenter of the preset `cpu`, as if the job had made it."""
    config, storage = resolve_config(), make_storage(settings)
    database = Database(settings.database)
    model, origin = build_model(config, 3, None, 0, allow_download=False)
    with tempfile.TemporaryDirectory() as name:
        meta = {
            "categories": [{"id": n, "name": f"class {n}"} for n in range(3)],
            "config": config.to_dict(),
            "weights": {"kind": origin.kind, "detail": origin.detail},
        }
        save_artifact(Path(name), model.segmenter, meta)
        path = Path(name) / "model.pt"
        sha = storage.put_bytes(path.read_bytes())
        predictor = load_predictor(path)
        with database.begin() as session:
            added = Model(
                job_id=job_id,
                name="untrained",
                categories=meta["categories"],
                sha256=sha,
                size=path.stat().st_size,
                meta={},
            )
            session.add(added)
            session.flush()
            model_id = added.id
    database.dispose()
    return model_id, predictor


def post(port: int, body: bytes, headers: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/predict", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    connection.close()
    return content


def predicting(port: int, model_id: str, predictor: Predictor, jpeg: Path, small: bool) -> Row:
    """The route, which reads the image too, against the call that it makes."""
    image, border = read_rgb(jpeg), "a-border"
    parts = [
        f'--{border}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model_id}\r\n',
        f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n',
    ]
    body = "".join(parts).encode() + jpeg.read_bytes() + f"\r\n--{border}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
    return compare(
        f"POST /predict of a JPEG of {image.shape[1]}×{image.shape[0]}, preset cpu",
        partial(post, port, body, headers),
        partial(predictor.predict, image, 0.5),
        against="the bare predict() call, in a process of its own",
        goal=0.91,
        rounds=1 if small else 15,
        sample=0 if small else 1,
    )


def measure(small: bool) -> list[Row]:
    masks = 500 if small else 100_000
    rows = imported(1 if small else 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(data_dir=folder / "data", log_level="error")
        job_id = fill(settings, masks)
        model_id, predictor = add_model(settings, job_id)
        (folder / "empty.py").write_text(EMPTY)
        options = ["--no-access-log", "--log-level", "warning", "--app-dir", name, "--port"]
        plain = [sys.executable, "-m", "uvicorn", "empty:app", *options]
        own = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port"]
        environment = {"SAPNET_DATA_DIR": str(folder / "data"), "SAPNET_LOG_LEVEL": "warning"}
        with (
            process(own, folder / "own.log", environment) as port,
            process(plain, folder / "plain.log", {}) as other,
        ):
            path = f"/jobs/{job_id}/pseudo-masks"
            size = fetch(port, path)
            rows.append(
                compare(
                    f"{masks:,} pseudo-masks as a stream of {size / 2**20:.0f} MiB",
                    partial(fetch, port, path),
                    partial(fetch, other, f"/?size={size}"),
                    against="an empty FastAPI route that streams as many bytes",
                    goal=0.5,
                    rounds=1 if small else 9,
                    sample=0,
                )
            )
            scene = next(make_scenes(folder / "scenes", 1, (480, 640)).images.iterdir())
            jpeg = folder / "a.jpg"
            PilImage.open(scene).convert("RGB").save(jpeg, quality=90)
            rows.append(predicting(port, model_id, predictor, jpeg, small))
    return rows
