# A walk through all of it: scenes, points, training, review, training again, predictions, exports.
#
# Cells begin with `# %%`: editors run them one by one, and `python examples/walkthrough.py` all.
# It needs a service: `sapnet-service serve`. On another machine: SAPNET_URL, SAPNET_KEY.
# SHORT=1 trains for a moment only, to see that everything works.

# %% What it is done with
import json
import os
from pathlib import Path

from PIL import Image, ImageDraw

from sapnet.data.synthetic import make_scenes
from sapnet_client import Client
from sapnet_client.types import Mask

OUT = Path(os.environ.get("OUT", "walkthrough-out"))
SHORT = bool(os.environ.get("SHORT"))
SIZE = (96, 112) if SHORT else (224, 224)
QUICK = {"train.epochs": 1, "teacher.epochs": 1, "teacher.min_steps": 6, "data.short_sides": [96]}
SETTINGS = QUICK if SHORT else {}

client = Client()

# %% Scenes with one point an object. Yours: a folder of images, and points in COCO's form
scenes = make_scenes(OUT / "scenes", 4 if SHORT else 12, size=SIZE, seed=1)
points = json.loads(scenes.points.read_text())
print(f"{len(points['images'])} images, {len(points['annotations'])} points")
print("a point:", points["annotations"][0])

# %% Send them. What is wrong with them would be listed here, all of it at once
dataset = client.create_dataset(scenes.images, scenes.points, truth=scenes.truth, name="scenes")
print("data set", dataset.id, [category.name for category in dataset.categories])

# %% Train, and wait: the job goes on without us, `client.wait(job_id)` comes back to it
job = client.wait(client.train(dataset, preset="demo", overrides=SETTINGS))
figures = client.metrics(job)
print(job.state, figures.seconds)
print("mIoU of the delivered masks:", (figures.pseudo_masks or {})["miou_mask"])


# %% The masks that are of lowest quality
def image_of(mask: Mask) -> Image.Image:
    """The image with the mask in red and its point in white."""
    path = scenes.images / names[mask.image_id]
    image = Image.open(path).convert("RGB")
    red = Image.new("RGB", image.size, (255, 0, 0))
    half = Image.fromarray(mask.segmentation.array().astype("uint8") * 128)
    image.paste(red, mask=half)
    if mask.point:
        x, y = mask.point
        ImageDraw.Draw(image).ellipse([x - 3, y - 3, x + 3, y + 3], fill="white")
    return image


names = {image.id: image.file_name for image in client.images(dataset)}
worst = list(client.review(job))[:5]
for mask in worst:
    print(f"annotation {mask.id}: quality {mask.quality:.2f}, {mask.area:.0f} pixels")
image_of(worst[0]).save(OUT / "doubtful.png")

# %% Correct the worst: a click beside it says that this is of the object too
left, top, width, height = worst[0].bbox
x = left + width + 2 if left + width + 4 < SIZE[1] else left - 2
suggested = client.suggest(worst[0], [(x, top + height / 2)])
after = client.correct(worst[0], suggested.segmentation)
image_of(after).save(OUT / "corrected.png")
print(f"{worst[0].area:.0f} pixels before, {after.area:.0f} after; it is {after.status} now")

# %% One that is right, and, where the bag has a better one, another choice
client.accept(worst[1])
if worst[2].candidates:
    client.choose(worst[2], worst[2].candidates[0].index)
print(client.review_counts(job))

# %% Train again: on what was decided, from the weights that there are
second = client.corrections(job, name="scenes, corrected")
again = client.wait(
    client.train(second, preset="demo", overrides=SETTINGS, from_model=job.model_id)
)
side_by_side = client.compare(job, again)
print("quality before:", side_by_side.quality.before, "now:", side_by_side.quality.after)
(same,) = [pair for pair in side_by_side.masks if pair.id == after.id]
print(f"the corrected mask is kept: IoU with what was delivered before {same.iou:.2f}")

# %% A name for the better model, and an image that it never saw
assert again.model_id is not None
client.set_alias("scenes-best", again.model_id)
new = make_scenes(OUT / "new", 1, size=SIZE, seed=1, start_id=100_001)
image = next(new.images.iterdir())
for found in client.predict("scenes-best", image, score=0.05)[:5]:
    print(f"class {found.category_id}, score {found.score:.2f}, box {found.bbox}")
(OUT / "predicted.png").write_bytes(client.overlay("scenes-best", image))

# %% Take it away: masks in formats of other tools, and the model
for format in ("coco", "yolo-seg", "png"):
    print(client.export(again, format, OUT / "exports"))
print(client.download_model("scenes-best", OUT / "model.pt"))
