"""A trainer that trains nothing but speaks the whole protocol of docs/architecture.md.

`python fake_trainer.py [--steps N] [--sleep S] [...] JOB.json`. Its state is one number in the
work folder, so that a second start goes on; every start appends a line to `starts.txt`.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

STOP = False


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def square(annotation: dict, height: int, width: int, reach: int = 2) -> dict:
    x, y = (int(v) for v in annotation["point"])
    mask = np.zeros((height, width), np.uint8, order="F")
    rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (y, x))
    mask[rows, columns] = 1
    rle = coco_mask.encode(mask)
    box = [float(v) for v in coco_mask.toBbox(rle)]
    rle["counts"] = rle["counts"].decode()
    return {"rle": rle, "bbox": box, "area": int(mask.sum())}


def results(job: dict, folder: Path, model_mb: int) -> None:
    folder.mkdir(exist_ok=True)
    points = json.loads(Path(job["points"]).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in points["images"]}
    lines = []
    for annotation in points["annotations"]:
        size = sizes[annotation["image_id"]]
        mask, small, large = (square(annotation, *size, reach) for reach in (2, 1, 4))
        known = annotation.get("mask")
        if known:
            box = [float(v) for v in coco_mask.toBbox(known)]
            mask = {"rle": known, "bbox": box, "area": int(coco_mask.area(known))}
        quality = 1.0 if known else 0.25 + 0.5 * (annotation["id"] % 2)
        source = "confirmed" if known else "selected" if annotation["id"] % 2 else "refined"
        lines.append(
            json.dumps(
                {
                    "id": annotation["id"],
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "segmentation": mask["rle"],
                    "bbox": mask["bbox"],
                    "area": mask["area"],
                    "quality": quality,
                    "source": source,
                    "selected": mask["rle"],
                    "refined": None,
                    "proposal_source": "hierarchy",
                    "doubts": {"support": 0.5, "predicted": None},
                    "candidates": [
                        {"index": 0, "segmentation": large["rle"], "probability": 0.2},
                        {"index": 1, "segmentation": small["rle"], "probability": 0.1},
                    ],
                }
            )
        )
    write(folder / "pseudo_masks.ndjson", "\n".join(lines) + "\n")
    pseudo = {"miou_mask": 0.5, "count": len(lines)} if job["truth"] else None
    metrics = {"pseudo_masks": pseudo, "model": None, "proposals": {}}
    write(folder / "metrics.json", json.dumps(metrics))
    weights = f"weights of seed {job['seed']}".encode()
    (folder / "model.pt").write_bytes(weights * max(1000, (model_mb << 20) // len(weights)))
    names = [category["name"] for category in points["categories"]]
    write(folder / "model.json", json.dumps({"classes": names, "seed": job["seed"]}))
    (folder / "model.safetensors").write_bytes(b"safe " + weights)
    (folder / "gallery.png").write_bytes(b"\x89PNG\r\n\x1a\n fake")
    write(folder / "report.html", "<!doctype html><title>fake</title>")
    write(folder / "report.json", json.dumps({"seconds": {"train": 1.0}, "peak_memory_mb": 1}))


def labelled(category: int, x: int, y: int, quality: float) -> dict:
    mask = square({"point": [x, y]}, 30, 40)
    kept = {"segmentation": mask["rle"], "bbox": mask["bbox"], "area": mask["area"]}
    at = {"point": [x + 0.5, y + 0.5], "score": quality - 0.1, "quality": quality}
    return {"category_id": category, **kept, **at}


def predictions(job: dict, args: argparse.Namespace) -> None:
    """A square in each image, but where the job file says that there is none to look at."""
    part = Path(job["workdir"]) / "predictions.part"
    done = part.read_text().count("\n") if part.exists() else 0
    rle = square({"point": [3, 3]}, 30, 40)
    result = {"category_id": 7, "segmentation": rle["rle"], "bbox": rle["bbox"], "score": 0.9}
    found = [result]
    if job.get("label"):
        found = [labelled(*each) for each in ((7, 3, 3, 0.9), (0, 20, 20, 0.4), (0, 30, 10, 0.95))]
    for step, image in enumerate(job["images"][done:], start=done + 1):
        if STOP:
            sys.exit(3)
        time.sleep(args.sleep)
        line = {"number": image["number"], "error": image.get("error")}
        if line["error"] is None:
            assert Path(image["path"]).is_file()
            line = {"number": image["number"], "size": [30, 40], "results": found}
        with part.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if step == args.crash_at and done < args.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        say("progress", stage="predict", step=step, of=len(job["images"]), eta_seconds=1.0)
    folder = Path(job["workdir"]) / "result"
    folder.mkdir()
    part.touch()
    part.replace(folder / "predictions.ndjson")
    say("done", seconds={"all": 1.0}, peak_memory_mb=1)


def onnx(job: dict) -> None:
    folder = Path(job["workdir"]) / "result"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"onnx of " + Path(job["model"]).read_bytes()[:20])
    say("done", seconds={"all": 1.0}, peak_memory_mb=1)


def imported(job: dict) -> None:
    content = Path(job["file"]).read_bytes()
    if b"wrong" in content:
        message = f"{job['name']} was not taken: keys 1 of another shape"
        say("error", reason="weights_unavailable", message=message)
        sys.exit(1)
    folder = Path(job["workdir"]) / "result"
    folder.mkdir(exist_ok=True)
    (folder / "model.pt").write_bytes(b"read: " + content)
    (folder / "model.safetensors").write_bytes(b"safe " + content[:20])
    config = {"backbone": {"name": "mobilenet_v2"}}
    meta = {"categories": [{"id": 7, "name": "cell"}], "config": config}
    write(folder / "model.json", json.dumps(meta))
    say("progress", stage="model", step=1, of=1, eta_seconds=0.0)
    say("done", seconds={"all": 1.0}, peak_memory_mb=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--reason", default="non_finite_loss", help="of the failure")
    parser.add_argument("--crash-at", type=int, default=-1, help="SIGKILL itself there, once")
    parser.add_argument("--crash-always", action="store_true", help="SIGKILL itself at the start")
    parser.add_argument("--deaf", action="store_true", help="does not hear SIGTERM")
    parser.add_argument("--model-mb", type=int, default=0)
    parser.add_argument("--curves", action="store_true", help="leaves an image of curves")
    parser.add_argument("--settings", action="store_true", help="the model names its settings")
    parser.add_argument("--child", action="store_true", help="leaves a child that holds stdout")
    args = parser.parse_args()

    def stop(*_: object) -> None:
        global STOP
        STOP = not args.deaf

    signal.signal(signal.SIGTERM, stop)
    job = json.loads(args.job.read_text())
    workdir = Path(job["workdir"])
    with (workdir / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if job.get("kind") == "predict":
        return predictions(job, args)
    if job.get("kind") == "onnx":
        return onnx(job)
    if job.get("kind") == "import":
        return imported(job)
    if job.get("preset") == "auto":
        say("preset", preset="cpu", reasons=["2 cores and no GPU.", "It is fake."])
    say("start", proposal_generator="fake", weights_origin="random", steps_total=args.steps)
    print("a log line of the trainer", file=sys.stderr)
    if args.crash_always:
        os.kill(os.getpid(), signal.SIGKILL)
    if args.child and os.fork() == 0:
        time.sleep(60)
    state = workdir / "state.txt"
    done = int(state.read_text()) if state.exists() else 0
    print("this line is not of the protocol")
    say("warning", message="weights are random")
    for step in range(done + 1, args.steps + 1):
        if STOP:
            sys.exit(3)
        time.sleep(args.sleep)
        write(state, str(step))
        if step == args.crash_at and done < args.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        losses = {"psm": 1.0 / step}
        say("progress", stage="train", step=step, of=args.steps, eta_seconds=1.5, losses=losses)
    if args.fail:
        say("error", reason=args.reason, message="loss term 'psm' became nan at step 3")
        sys.exit(1)
    results(job, workdir / "result", args.model_mb)
    if args.settings:  # so that another training can go on from it
        from sapnet.config.resolve import resolve_config

        model = workdir / "result" / "model.json"
        config = resolve_config(preset=job["preset"]).to_dict()
        write(model, json.dumps({**json.loads(model.read_text()), "config": config}))
    if args.curves:
        (workdir / "result" / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n curves")
    say("done", seconds={"train": 1.0}, peak_memory_mb=1)


if __name__ == "__main__":
    main()
