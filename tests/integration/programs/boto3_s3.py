"""boto3: objects of S3, in a server that speaks as much of it as is needed."""

import boto3
import botocore.exceptions
from botocore.config import Config
from measuring import ASKED, COUNT, main

client = boto3.client(
    "s3",
    endpoint_url=f"http://{ASKED['host']}:{ASKED['port']}",
    region_name="us-east-1",
    aws_access_key_id="somebody",
    aws_secret_access_key="not one",
    config=Config(max_pool_connections=COUNT + 1, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
)


def get(key):
    return client.get_object(Bucket="bucket", Key=key)["Body"].read()


def quick():
    client.put_object(Bucket="bucket", Key="object", Body=b"content")
    assert get("object") == b"content"


main(
    slow=lambda seconds: get(f"slow/{seconds}"),
    quick=quick,
    in_flight=lambda: int(get("waiting")),
    errors=botocore.exceptions.BotoCoreError,
)
