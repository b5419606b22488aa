"""docker/helm: rendered by Helm, valid by the schemas of Kubernetes, true to what there is."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.jobs import fleet_metrics
from app.jobs.kinds import QUEUES
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "docker" / "helm"
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
ALL = (
    "autoscaling.enabled=true",
    "monitoring.enabled=true",
    "api.ingress.enabled=true",
    "api.ingress.tlsSecret=tls",
    "api.gpus=1",
    "workers.train.gpus=2",
    "workers.train.sharedClaim=work",
    "workers.train.nodeSelector.pool=gpu",
    "imagePullSecrets[0].name=registry",
)
OWN_KINDS = {"ScaledObject", "ServiceMonitor", "PodMonitor"}  # of KEDA and the Prometheus operator
KUBERNETES = ("1.27", "1.31", "1.34")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(HELM is None, reason="no helm: its package is for Linux on x86-64"),
]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True)


def rendered(*values: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Documents by kind and name."""
    sets = [part for value in values for part in ("--set", value)]
    done = helm("template", "demo", str(CHART), *sets)
    assert done.returncode == 0, done.stderr
    documents = [d for d in yaml.safe_load_all(done.stdout) if d]
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def pods(documents: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod templates' specs by the name of what makes them."""
    return {
        name: document["spec"]["template"]["spec"]
        for (kind, name), document in documents.items()
        if kind in ("Deployment", "Job")
    }


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [(), ALL])
def test_documents_are_valid(values: tuple[str, ...], version: str) -> None:
    documents = rendered(*values)
    core = [d for (kind, _), d in documents.items() if kind not in OWN_KINDS]
    assert len(core) >= 7
    for document in core:
        kubernetes_validate.validate(document, version, strict=True)


def test_roles_commands_and_settings_are_those_there_are() -> None:
    documents = rendered()
    (settings,) = [d["data"] for (kind, _), d in documents.items() if kind == "ConfigMap"]
    for variable in settings:
        if variable.startswith("SAPNET_"):
            assert variable.removeprefix("SAPNET_").lower() in Settings.model_fields, variable
    specs = pods(documents)
    assert set(specs) == {"demo-migrate", "demo-api", "demo-io", "demo-predict", "demo-train"}
    queues: list[str] = []
    for name, spec in specs.items():
        (container,) = spec["containers"]
        program, command, *options = container["command"]
        assert program == "sapnet-service"
        helped = CliRunner().invoke(cli, [command, "--help"])
        assert helped.exit_code == 0, name
        assert all(o in helped.output for o in options if o.startswith("--")), name
        if "--queues" in options:
            queues += options[options.index("--queues") + 1].split(",")
    assert sorted(queues) == sorted(QUEUES)
    options = specs["demo-train"]["containers"][0]["command"]
    assert options[-1] == "train,shard"


def test_a_further_worker_makes_shards() -> None:
    worker = "workers.shards.queues={shard},workers.shards.replicas=8,workers.shards.cache=1Gi"
    scaled = "autoscaling.enabled=true,autoscaling.workers.shards.min=0"
    documents = rendered(f"{worker},{scaled},autoscaling.workers.shards.max=9")
    (container,) = pods(documents)["demo-shards"]["containers"]
    assert container["command"][-2:] == ["--queues", "shard"]
    deployment = documents[("Deployment", "demo-shards")]
    kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)
    trigger = documents[("ScaledObject", "demo-shards")]["spec"]["triggers"][0]["metadata"]
    assert 'queue=~"shard"' in trigger["query"]


def test_nothing_runs_as_root_and_all_are_looked_after() -> None:
    for name, spec in pods(rendered(*ALL)).items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        if name != "demo-migrate":
            assert {"startupProbe", "livenessProbe", "resources"} <= set(container), name
            assert spec["terminationGracePeriodSeconds"] > 30


def test_gpus_are_asked_for_where_they_are_wanted() -> None:
    plain = pods(rendered())
    assert all(s["containers"][0]["image"] == "sapnet-service:0.1.0" for s in plain.values())
    assert not any("nvidia.com/gpu" in str(spec) for spec in plain.values())
    specs = pods(rendered(*ALL))
    train = specs["demo-train"]["containers"][0]
    assert train["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert train["image"] == "sapnet-service:0.1.0-gpu"
    assert specs["demo-api"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in str(specs["demo-io"])
    claims = [v.get("persistentVolumeClaim") for v in specs["demo-train"]["volumes"]]
    assert {"claimName": "work"} in claims
    assert specs["demo-train"]["nodeSelector"] == {"pool": "gpu"}


def test_a_new_setting_restarts_the_pods() -> None:
    def checksum(*values: str) -> str:
        api = rendered(*values)[("Deployment", "demo-api")]
        found: str = api["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        return found

    assert checksum() == checksum()
    assert checksum() != checksum("settings.SAPNET_MAX_IMAGE_PIXELS=1000000")


def test_scaling_is_by_metrics_that_there_are() -> None:
    documents = rendered(*ALL)
    scaled = documents[("ScaledObject", "demo-train")]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "demo-train"
    assert ("Deployment", "demo-train") in documents
    assert "replicas" not in documents[("Deployment", "demo-train")]["spec"]
    assert documents[("Deployment", "demo-io")]["spec"]["replicas"] == 1
    query = scaled["triggers"][0]["metadata"]["query"]
    source = Path(str(fleet_metrics.__file__)).read_text()
    for metric, label in (("sapnet_queue_depth", "queue"), ("sapnet_jobs", "state")):
        assert metric in query
        assert f'"{metric}"' in source
        assert f'labels=["{label}"]' in source
    wrong = helm(
        "template",
        "demo",
        str(CHART),
        "--set",
        "autoscaling.enabled=true,autoscaling.workers.none.max=1",
    )
    assert wrong.returncode != 0
    assert "autoscaling.workers.none is no worker" in wrong.stderr
