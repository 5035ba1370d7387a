"""Records from what a job computed its outputs; records/record.py does the same for other jobs."""

import hashlib
import json
import os

RECORDED = ("settings", "code", "image")
NOT_CONTENT = (".snakemake_timestamp",)


def digest(value):
    """16 hex digits that name a JSON value; retrace.files.digest."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_of(path):
    """The files of a folder by their names in it, or the file itself as `.`."""
    if not os.path.isdir(path):
        return {".": path}
    files = {}
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not leads_back(os.path.join(folder, name))]
        for name in names:
            if name not in NOT_CONTENT:
                file = os.path.join(folder, name)
                files[os.path.relpath(file, path).replace(os.sep, "/")] = file
    return files


def leads_back(folder):
    """Whether a folder is a link to one that contains it, which would never end."""
    parent = os.path.join(os.path.realpath(os.path.dirname(folder)), "")
    inside = parent.startswith(os.path.join(os.path.realpath(folder), ""))
    return os.path.islink(folder) and inside


def file_digest(path):
    """The sha256 of a file."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            total.update(piece)
    return total.hexdigest()


def version(path):
    """Times and bytes of a file or folder that no job writes."""
    files = files_of(path)
    entries = []
    for name in sorted(files, key=lambda name: name.split("/")):
        stat = os.stat(files[name])
        times = [stat.st_mtime_ns, stat.st_ctime_ns]
        entries.append([name, stat.st_size] + times + [stat.st_ino])
    bytes_of = {name: file_digest(file) for name, file in files.items()}
    return {"fingerprint": digest(entries), "sha256": digest(bytes_of)}


def start(job):
    """The record of a job that starts now, and its file; None for a job that is run by hand."""
    if not job.get("identity"):
        return None
    with open(job["identity"]) as file:
        plan = json.load(file)
    inputs = {path: version(path) for path in plan["own"]}
    for path, manifest in plan["produced"].items():
        with open(manifest) as file:
            inputs[path] = {"identity": json.load(file)["identity"]["digest"]}
    content = {key: plan[key] for key in RECORDED}
    content.update({"resolved": {}, "inputs": inputs})
    timeless = {
        path: {key: value for key, value in one.items() if key != "fingerprint"}
        for path, one in inputs.items()
    }
    content["digest"] = digest(dict(content, inputs=timeless))
    return plan["record"], content


def write(record):
    """Writes a record into the manifest of the job's first output."""
    if record is None:
        return
    path, content = record
    manifest = {}
    if os.path.isfile(path):
        with open(path) as file:
            manifest = json.load(file)
    manifest["identity"] = content
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = path + ".partial"
    with open(partial, "w") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(partial, path)
