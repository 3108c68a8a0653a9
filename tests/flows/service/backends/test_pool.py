"""Work pools: what is told to Prefect, held against Prefect's own schemas and Kubernetes' where their packages are there."""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows.service.backends.pool import PACKAGES, job_template, refuse_without_package, worker_command
from flows.service.backends.runs import RUNS, runs_path, tell_runs
from flows.service.processes import private_folder
from schemas.service import PoolType, ServiceSettings
from stages.runtime.errors import StageError

CONTAINERS: tuple[PoolType, ...] = ("docker", "kubernetes")


def settings_of(pool: PoolType) -> ServiceSettings:
    return ServiceSettings(
        pool=pool, image="registry.example/dream:1", namespace="art", gpus=1, store="s3://b/s", tracker="https://t.example"
    )


def filled(template: dict[str, Any]) -> dict[str, Any]:
    """The job's settings with every variable's default in its place, as a worker fills them in."""
    from prefect.utilities.templating import apply_values

    properties = template["variables"]["properties"]
    values = {name: entry.get("default") for name, entry in properties.items() if entry.get("default") is not None}
    done: dict[str, Any] = apply_values(template["job_configuration"], values, remove_notset=True)
    return done


@pytest.mark.parametrize("pool", [*CONTAINERS, "process"])
def test_a_template_is_what_prefect_takes(pool: PoolType) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate

    template = job_template(settings_of(pool))
    WorkPoolCreate(name="pool", type=pool, base_job_template=template)
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    named = set(json.dumps(template["job_configuration"]).replace("{{", "\0").split("\0")[1:])
    assert {part.partition("}}")[0].strip() for part in named} <= set(template["variables"]["properties"])


def test_a_process_pool_belongs_to_no_machine() -> None:
    text = json.dumps(job_template(ServiceSettings()))
    assert sys.executable not in text
    assert job_template(ServiceSettings())["variables"]["properties"]["working_dir"].get("default") is None


@pytest.mark.parametrize("pool", CONTAINERS)
def test_containers_get_image_and_addresses_and_no_secret(pool: PoolType) -> None:
    job = filled(job_template(settings_of(pool)))
    assert "registry.example/dream:1" in json.dumps(job)
    assert job["env"] == {"MLFLOW_TRACKING_URI": "https://t.example", "DREAMPOLISH_STORE": "s3://b/s"}


def test_a_cluster_job_has_gpus_time_to_checkpoint_and_no_rights() -> None:
    spec = filled(job_template(settings_of("kubernetes")))["job_manifest"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["terminationGracePeriodSeconds"] >= 60
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_kubernetes_itself_would_take_the_job() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    job = filled(job_template(settings_of("kubernetes")))
    manifest = job["job_manifest"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    # As the worker turns them: a mapping to a list, a command to words.
    container["env"] = [{"name": name, "value": value} for name, value in job["env"].items()]
    container["args"] = ["python", "-m", "prefect.engine"]
    manifest["metadata"]["namespace"] = job["namespace"]
    # Prefect's worker insists on these two at this place, where Kubernetes knows none such and leaves them out.
    for name in ("completions", "parallelism"):
        del manifest["spec"]["template"]["spec"][name]
    validate.validate(manifest, "1.33", strict=True)
    manifest["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Never"
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize(
    ("pool", "module", "worker"),
    [("docker", "prefect_docker", "DockerWorker"), ("kubernetes", "prefect_kubernetes", "KubernetesWorker")],
)
def test_the_worker_of_the_type_understands_the_template(pool: PoolType, module: str, worker: str) -> None:
    collection = pytest.importorskip(module)
    found = getattr(__import__(f"{collection.__name__}.worker", fromlist=[worker]), worker)
    found.job_configuration.model_validate(filled(job_template(settings_of(pool))))
    own = found.get_default_base_job_template()["variables"]["properties"]
    assert set(own) <= set(job_template(settings_of(pool))["variables"]["properties"]), "a newer version has more variables"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.service.backends.pool.find_spec", lambda name: None)
    refuse_without_package("process")
    for pool in PACKAGES:
        with pytest.raises(StageError, match=f"prefect-{pool}.*pip install"):
            refuse_without_package(pool)
    assert worker_command("docker")[1:4] == ["prefect", "worker", "start"]


def test_runs_of_a_worker_have_its_machines_folder_interpreter_and_environment(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from uuid import uuid4

    from prefect.client.schemas.objects import FlowRun

    from flows.service.backends.worker import MachineJob, MachineWorker

    assert MachineWorker.type == "process"
    private_folder(store / "services")
    tell_runs(runs_path(store), tmp_path, {"DREAMPOLISH_STORE": str(store)})
    monkeypatch.setenv(RUNS, str(runs_path(store)))
    job = MachineJob(command=None, env={}, labels={}, name="run")
    job.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="run"))
    assert job.working_dir == tmp_path
    assert job.env["DREAMPOLISH_STORE"] == str(store)
    assert job.command is not None
    assert job.command.startswith(sys.executable)
    assert runs_path(store).stat().st_mode & 0o777 == 0o600
    monkeypatch.delenv(RUNS)
    own = MachineJob(command=None, env={}, labels={}, name="run")
    own.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="run"))
    assert own.working_dir == Path.cwd(), "a worker that was started by hand works where it stands"
