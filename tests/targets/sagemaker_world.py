"""moto's server, SageMaker's plug-in of MLflow and the target `mlflow`: what came of it, as one line of JSON.

python sagemaker_world.py FOLDER
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import MlcicdError
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.mlflow_plugin import MlflowTarget

REGION, ROLE = "eu-west-1", "arn:aws:iam::123456789012:role/sagemaker"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/mlflow-pyfunc:1"
CONFIG = {"execution_role_arn": ROLE, "bucket": "models", "image_url": IMAGE, "timeout_seconds": 60}


def version(root: Path, number: int) -> ModelVersion:
    path = root / f"model-{number}"
    path.mkdir()
    (path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: nobody_loads_it\n")
    (path / "factor").write_text(str(number))
    return ModelVersion("flights", str(number), path, digest_tree(path), "python")


def posted(url: str, body: object) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, json.loads(answer.read() or b"{}")


def main(root: Path, address: str) -> dict[str, object]:
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": REGION})
    variant = {"VariantName": "a", "ModelName": "other", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_model(ModelName="other", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE})
    sagemaker.create_endpoint_config(
        EndpointConfigName="other", ProductionVariants=[{**variant, "InitialVariantWeight": 1.0}]
    )
    sagemaker.create_endpoint(EndpointName="other-1", EndpointConfigName="other")

    def target(name: str = "flights", state: str = "state") -> MlflowTarget:
        settings = {"model": "flights", "name": name, "config": CONFIG}
        return MlflowTarget("prod", root / state, uri=f"sagemaker:/{REGION}", **settings)  # type: ignore[arg-type]

    def endpoints() -> dict[str, str]:
        found = sagemaker.list_endpoints(MaxResults=100)["Endpoints"]
        return {item["EndpointName"]: item["EndpointStatus"] for item in found}

    seen: dict[str, object] = {}
    ours = target()
    url = ours.deploy(version(root, 1))
    seen["tested"] = endpoints()
    # moto loads no model: it answers what it was told to.
    answer = {"Body": json.dumps({"predictions": [4.0]}), "ContentType": "application/json"}
    told = {"account_id": "123456789012", "region": REGION, "results": [answer]}
    posted(f"{address}/moto-api/static/sagemaker/endpoint-results", told)
    seen["answer"] = posted(f"{url}/invocations", {"dataframe_records": [{"x": 2.0}]})
    ours.promote("1")
    seen["promoted"] = endpoints()
    now = target().status()
    seen["status"] = [now.live, now.canary, now.healthy]
    stored = [item["Key"] for item in s3.list_objects_v2(Bucket="models")["Contents"]]
    content = s3.get_object(Bucket="models", Key=stored[-1])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        seen["model"] = sorted(archive.getnames())
    ours.deploy(version(root, 2))
    try:
        ours.promote("2")
    except MlcicdError as error:
        seen["refused"] = f"{error.one_line()} {error.detail()}"
    seen["after_refusal"] = sorted(name for name in endpoints() if name.startswith("flights"))
    try:
        target("other-1", "elsewhere").deploy(ModelVersion("flights", "9", root / "model-2", "", "python"))
        target("other-1", "elsewhere").promote("9")
    except MlcicdError as error:
        seen["foreign"] = error.one_line().partition(": ")[2]
    target("other-1", "elsewhere").stop()
    ours.stop()
    seen["stopped"] = sorted(endpoints())
    left = s3.list_objects_v2(Bucket="models").get("Contents", [])
    seen["left_in_bucket"] = [item["Key"] for item in left]
    return seen


if __name__ == "__main__":
    own = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
    # Answers of 500 are what moto has for what it can not do: asking again takes seconds and changes nothing.
    os.environ |= {**own, "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    try:
        print(json.dumps(main(Path(sys.argv[1]), os.environ["AWS_ENDPOINT_URL"])))
    finally:
        server.stop()
