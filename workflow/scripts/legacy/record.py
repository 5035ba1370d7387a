"""Records from what a job computed its outputs, and replaces them together.

records/record.py and replacement.py do the same for other jobs, and read what this module writes.
"""

import hashlib
import json
import os
import shutil

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


def produced_version(path):
    """From what another job's outputs were computed, and their bytes."""
    with open(path) as file:
        manifest = json.load(file)
    record = manifest["identity"]
    arrays = {name: one["sha256"] for name, one in manifest.get("arrays", {}).items()}
    content = [arrays, manifest.get("files", {}), record.get("outputs", {})]
    return {"identity": record["digest"], "content": digest(content)}


def start(job):
    """The record of a job that starts now, and its file; None for a job that is run by hand."""
    if not job.get("identity"):
        return None
    with open(job["identity"]) as file:
        plan = json.load(file)
    inputs = {path: version(path) for path in plan["own"]}
    for path, manifest in plan["produced"].items():
        inputs[path] = produced_version(manifest)
    content = {key: plan[key] for key in RECORDED}
    content.update({"resolved": {}, "inputs": inputs})
    timeless = {
        path: {key: value for key, value in one.items() if key != "fingerprint"}
        for path, one in inputs.items()
    }
    content["digest"] = digest(dict(content, inputs=timeless))
    return plan["record"], content


def waiting(path):
    """Where the new version of a file waits until all outputs are replaced."""
    return os.path.join(os.path.dirname(path), ".%s.next" % os.path.basename(path))


def write(record, outputs):
    """Writes a record of `outputs`, [(new version, path)], and puts all of them in their places."""
    if record is None:
        replace(outputs, outputs[0][1])
        return
    path, content = record
    manifest = {}
    if os.path.isfile(path):
        with open(path) as file:
            manifest = json.load(file)
    digests = {os.path.relpath(final): version(new)["sha256"] for new, final in outputs}
    manifest["identity"] = dict(content, outputs=digests)
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(waiting(path), manifest)
    replace(outputs + [(waiting(path), path)], path)


def replace(outputs, anchor):
    """Replaces each output; a journal named after `anchor` has the workflow complete it."""
    folder, name = os.path.split(anchor)
    for end in (".manifest.json", ".record.json"):
        name = name[: -len(end)] if name.endswith(end) else name
    journal = os.path.join(folder, ".%s.replacement.json" % name)
    for new, _ in outputs:
        flush(new)
    write_json(journal, [[from_folder(path, folder) for path in pair] for pair in outputs])
    for new, final in outputs:
        if os.path.isdir(new):
            name = ".%s.previous" % os.path.basename(final)
            previous = os.path.join(os.path.dirname(final), name)
            shutil.rmtree(previous, ignore_errors=True)
            if os.path.isdir(final):
                os.rename(final, previous)
            os.rename(new, final)
            shutil.rmtree(previous, ignore_errors=True)
        else:
            shutil.copy2(new, new + ".partial")
            os.replace(new + ".partial", final)
    for parent in {os.path.dirname(final) or "." for _, final in outputs}:
        flush_one(parent)
    os.remove(journal)
    for new, _ in outputs:
        if os.path.isfile(new):
            os.remove(new)


def flush(path):
    """Flushes a file, or a folder with all that is in it, so that they survive a power cut."""
    inside = [os.path.join(name, file) for name, _, files in os.walk(path) for file in files]
    folders = [name for name, _, _ in os.walk(path)]
    for one in inside + (folders or [path]):
        flush_one(one)


def flush_one(path):
    """Flushes one file or folder, without what is in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def from_folder(path, folder):
    """A path relative to a folder that it lies in, so that the folder can be moved; else itself."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path


def write_json(path, content):
    """Writes a JSON file atomically."""
    partial = path + ".partial"
    with open(partial, "w") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
