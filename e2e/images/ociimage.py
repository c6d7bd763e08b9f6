"""OCI images made of Python values: layers as lists of entries, written as an archive or pushed to a registry.

Standard library only and deterministic: the same input gives the same digests, so tests may name them.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import urllib.error
import urllib.request

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CREATED = "2026-01-01T00:00:00Z"
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Entry:
    """One member of a layer. `kind` is one of tarfile's type constants, `target` a link's other end."""

    def __init__(self, path, kind, mode=0o755, data=b"", target="", uid=0, gid=0, device=(0, 0), xattrs=None):
        self.path, self.kind, self.mode, self.data, self.target = path, kind, mode, data, target
        self.uid, self.gid, self.device, self.xattrs = uid, gid, device, xattrs or {}


def file(path, data, mode=0o644, **more):
    return Entry(path, tarfile.REGTYPE, mode, data if isinstance(data, bytes) else data.encode(), **more)


def directory(path, mode=0o755, **more):
    return Entry(path, tarfile.DIRTYPE, mode, **more)


def symlink(path, target, **more):
    return Entry(path, tarfile.SYMTYPE, 0o777, target=target, **more)


def hard_link(path, target, **more):
    """Mode and owner have to be those of the target, as tar itself writes them: whoever unpacks may set them again."""
    return Entry(path, tarfile.LNKTYPE, target=target, **more)


def device(path, kind, major, minor, mode=0o600):
    return Entry(path, kind, mode, device=(major, minor))


def fifo(path, mode=0o644):
    return Entry(path, tarfile.FIFOTYPE, mode)


def tar_of(entries, parents=True):
    """The uncompressed tar of a layer. With `parents`, directories that no entry names are added."""
    buffer = io.BytesIO()
    made = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add_parents(path):
            parent = os.path.dirname(path)
            if parent and parent != "/" and parent not in made:
                add_parents(parent)
                made.add(parent)
                info = tarfile.TarInfo(parent)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)

        for entry in entries:
            if parents:
                add_parents(entry.path)
            made.add(entry.path)
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode, info.linkname = entry.kind, entry.mode, entry.target
            info.uid, info.gid, info.mtime = entry.uid, entry.gid, 0
            info.devmajor, info.devminor = entry.device
            info.pax_headers = {"SCHILY.xattr." + k: v for k, v in entry.xattrs.items()}
            info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


class Image:
    """A one-platform image.

    `layers` are lists of Entry, or bytes: an uncompressed tar as it is. The attributes may be changed
    before the image is written; `blobs` maps the *claimed* digest to content, which is how an image is
    made whose content does not match.
    """

    def __init__(self, layers, config=None, compression="gzip", parents=True):
        self.blobs = {}
        self.layers = []
        self.diff_ids = []
        for layer in layers:
            plain = layer if isinstance(layer, bytes) else tar_of(layer, parents)
            self.diff_ids.append(digest_of(plain))
            packed, media = plain, LAYER
            if compression == "gzip":
                packed, media = gzip.compress(plain, 6, mtime=0), LAYER + "+gzip"
            self.layers.append(self.add_blob(packed, media))
        self.config = {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Env": [PATH_ENV], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": [{"created": CREATED, "created_by": "e2e/images"} for _ in layers],
        }

    def add_blob(self, data, media_type):
        """Stores a blob and returns its descriptor."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def finish(self):
        """Serialises config and manifest. Returns (manifest bytes, manifest digest)."""
        config = self.add_blob(json.dumps(self.config, sort_keys=True, separators=(",", ":")).encode(), CONFIG)
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": self.layers},
            separators=(",", ":")).encode()
        return manifest, digest_of(manifest)


def write_archive(path, images):
    """Writes an OCI image layout as a tar. `images`: {reference: Image}. Returns {reference: digest}."""
    blobs, manifests, digests = {}, [], {}
    for reference, image in images.items():
        manifest, digest = image.finish()
        blobs.update(image.blobs)
        blobs[digest] = manifest
        digests[reference] = digest
        manifests.append({
            "mediaType": MANIFEST, "digest": digest, "size": len(manifest),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": reference,
                            "io.containerd.image.name": reference}})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    members.update({"blobs/" + name.replace(":", "/"): data for name, data in sorted(blobs.items())})
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = path + ".new"
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    os.replace(temporary, path)
    return digests


def push(image, registry, name, tag):
    """Pushes to a plain-HTTP registry (`registry` is host:port). Returns the manifest's digest."""
    manifest, digest = image.finish()

    def request(method, url, data=None, headers=None):
        if not url.startswith("http"):
            url = f"http://{registry}{url}"
        asked = urllib.request.Request(url, data=data, method=method, headers=headers or {})
        # No proxy of the environment: the registry is on loopback.
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60)

    for claimed, data in image.blobs.items():
        try:
            request("HEAD", f"/v2/{name}/blobs/{claimed}").close()
            continue
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        with request("POST", f"/v2/{name}/blobs/uploads/", b"") as answer:
            location = answer.headers["Location"]
        location += ("&" if "?" in location else "?") + "digest=" + claimed
        request("PUT", location, data, {"Content-Type": "application/octet-stream"}).close()
    request("PUT", f"/v2/{name}/manifests/{tag}", manifest, {"Content-Type": MANIFEST}).close()
    return digest
