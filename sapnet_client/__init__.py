"""A client of the service: one point per object in, instance masks and a trained segmenter out.

from sapnet_client import Client

client = Client()
job = client.wait(client.train(client.create_dataset("images/", "points.json")))
client.export(job, "coco", "out/")
"""

from sapnet_client.client import AsyncClient, Client
from sapnet_client.errors import (
    BrokenUpload,
    ChangedMeanwhile,
    Conflict,
    DatasetInvalid,
    Forbidden,
    Invalid,
    JobFailed,
    NotFound,
    NotUnderstood,
    Problem,
    SapnetError,
    StillRunning,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    ValidationIssue,
)
from sapnet_client.extras import MissingPackage
from sapnet_client.progress import Bars, Progress
from sapnet_client.types import Dataset, Job, Segmentation, document

__all__ = [
    "AsyncClient",
    "Bars",
    "BrokenUpload",
    "ChangedMeanwhile",
    "Client",
    "Conflict",
    "Dataset",
    "DatasetInvalid",
    "Forbidden",
    "Invalid",
    "Job",
    "JobFailed",
    "MissingPackage",
    "NotFound",
    "NotUnderstood",
    "Problem",
    "Progress",
    "SapnetError",
    "Segmentation",
    "StillRunning",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "ValidationIssue",
    "document",
]
