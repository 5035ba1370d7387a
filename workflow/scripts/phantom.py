"""Writes generated volumes in the layout of the public bucket, to a folder or to an S3 bucket.

`generate --layout elektronn` writes cubes in the layout of ELEKTRONN's 3-D example instead.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from retrace.command_line import as_number
from retrace.errors import run
from retrace.synthetic.phantom_files import (
    TESTING,
    write_barrier_cube,
    write_paper_phantom,
    write_phantom_store,
)

CUBES = "elektronn"
"""The layout of ELEKTRONN's 3-D example."""
PUBLIC_ACTIONS = ("s3:GetObject", "s3:HeadObject", "s3:ListBucket")
"""AWS has no permission HeadObject; servers that name actions after HTTP verbs require it."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("generate", "upload"))
    parser.add_argument(
        "--output",
        type=Path,
        help="generate: folder that gets PREFIX/VOLUME.zarr, or raw_N.h5 and barrier_int16_N.h5",
    )
    parser.add_argument("--endpoint", help="upload: address of the S3 server")
    parser.add_argument("--bucket", default="open-neurodata")
    parser.add_argument("--prefix", default="funke/phantom/training")
    parser.add_argument("--volumes", nargs="+", default=["train_0", "val_0", "test_0"])
    parser.add_argument("--shape", nargs=3, type=int, default=(48, 128, 128), help="labels, z y x")
    parser.add_argument("--margin", nargs=3, type=int, default=(24, 48, 48), help="voxels per side")
    parser.add_argument(
        "--voxel-size-nm", nargs=3, type=as_number, default=(20, 9, 9), help="z y x"
    )
    parser.add_argument("--chunks", nargs=3, type=int, default=(32, 64, 64), help="z y x")
    parser.add_argument("--layout", choices=("zebrafinch", "hemi", CUBES), default="zebrafinch")
    parser.add_argument(
        "--layer",
        type=Path,
        help="one more volume in the layout of the paper's test regions: raw as a precomputed "
        f"layer in this folder, labels and skeletons below {TESTING}",
    )
    parser.add_argument("--seed", type=int, default=1, help="volume i is made from seed + i")
    args = parser.parse_args(argv)
    if args.verb == "generate" and args.output is None:
        parser.error("generate needs --output FOLDER")
    if args.layout == CUBES and (args.verb == "upload" or args.layer is not None):
        parser.error("--layout elektronn works only with generate and without --layer")
    if args.verb == "upload" and args.endpoint is None:
        parser.error("upload needs --endpoint URL")
    return args


def generate_volumes(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Writes each volume as FOLDER/PREFIX/VOLUME.zarr; returns the stores."""
    stores = [folder / args.prefix / f"{name}.zarr" for name in args.volumes]
    for index, store in enumerate(stores):
        write_phantom_store(
            store,
            args.shape,
            args.margin,
            args.voxel_size_nm,
            args.seed + index,
            layout=args.layout,
            chunks=args.chunks,
        )
        print(f"[phantom] {store.name}: labels {list(args.shape)}, seed {args.seed + index}")
    if args.layer is not None:
        seed = args.seed + len(stores)
        place = (args.shape, args.margin, args.voxel_size_nm, seed)
        write_paper_phantom(args.layer, folder, *place)
        print(f"[phantom] {args.layer}: region {list(args.shape)}, seed {seed}")
    return stores


def writing_client(endpoint: str, threads: int) -> Any:
    """An S3 client for writing, with the environment's credentials or dummies for test servers."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID", "phantom"),
        aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "phantom"),
        config=Config(max_pool_connections=threads, s3={"addressing_style": "path"}),
    )


def make_public_bucket(client: Any, bucket: str) -> None:
    """Creates `bucket` if it does not exist and lets everyone read and list it."""
    if bucket not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": list(PUBLIC_ACTIONS),
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def generate_cubes(args: argparse.Namespace) -> None:
    """Writes one numbered cube per volume."""
    for index, name in enumerate(args.volumes):
        place = (args.shape, args.margin, args.voxel_size_nm, args.seed + index)
        write_barrier_cube(args.output, index, *place)
        print(f"[phantom] cube {index} ({name}): labels {list(args.shape)}, seed {place[-1]}")


def upload_folder(client: Any, bucket: str, folder: Path, threads: int = 8) -> int:
    """Uploads all files in `folder`, with their relative paths as keys; returns their number."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def put(path: Path) -> None:
        key = path.relative_to(folder).as_posix()
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(put, path) for path in files]:
            done.result()
    return len(files)


def upload(args: argparse.Namespace) -> None:
    """Generates the volumes and uploads them."""
    with tempfile.TemporaryDirectory() as scratch:
        generate_volumes(args, Path(scratch))
        client = writing_client(args.endpoint, threads=8)
        make_public_bucket(client, args.bucket)
        count = upload_folder(client, args.bucket, Path(scratch))
    print(f"[phantom] {count} objects in {args.bucket}/{args.prefix} at {args.endpoint}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one verb."""
    args = parse_args(None if argv is None else list(argv))
    if args.layout == CUBES:
        generate_cubes(args)
    elif args.verb == "generate":
        generate_volumes(args, args.output)
    else:
        upload(args)


if __name__ == "__main__":
    run(main)
