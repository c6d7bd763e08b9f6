#!/usr/bin/env python3
"""Makes the images that `make run` and the tests use, from Debian's own packages.

    mkimage.py list
    mkimage.py archive NAME FILE.tar [--ref REFERENCE]    an OCI image layout in a tar
    mkimage.py push NAME HOST:PORT/REPOSITORY:TAG         to a plain-HTTP registry on loopback
    mkimage.py rootfs NAME DIRECTORY                      the root of an OCI bundle, unpacked

Prints the manifest's digest. NAME `busybox` is the good one; the rest of the list are images that a
runtime must refuse, or must unpack without touching anything outside the image's root.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ociimage import (Image, device, digest_of, directory, fifo, file, hard_link, push, symlink,  # noqa: E402
                      tar_of, write_archive)

BUSYBOX = "/bin/busybox"
DEFAULT_REF = "moat.test/{}:latest"

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
www-data:x:33:
users:x:100:
nogroup:x:65534:
"""


def busybox_entries():
    """busybox with a hard link for each applet, so that masking one does not mask them all."""
    try:
        with open(BUSYBOX, "rb") as program:
            binary = program.read()
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    except OSError as error:
        sys.exit(f"mkimage: {error}; it comes with Debian's package busybox-static")
    entries = [file("bin/busybox", binary, 0o755)]
    entries += [hard_link("bin/" + a, "bin/busybox") for a in sorted(applets) if a not in ("busybox", "sh")]
    # Debian builds its shell to run applets without exec. In this copy the table of applets says `lr`
    # where it said `ls` (it stays sorted), so that `sh -c ls` runs /bin/ls, masked or not, as other images' shells do.
    row = b"\0losetup\0ls\0lsmod\0"
    if binary.count(row) == 1:
        entries.append(file("bin/sh", binary.replace(row, b"\0losetup\0lr\0lsmod\0"), 0o755))
    else:
        entries.append(hard_link("bin/sh", "bin/busybox"))
    entries += [
        directory("root", 0o700), directory("tmp", 0o1777), directory("home"), directory("proc"),
        directory("sys"), directory("dev"), directory("run"), directory("var/run"), directory("var/log"),
        directory("var/www"), directory("usr/bin"), directory("usr/sbin"),
        file("etc/passwd", PASSWD), file("etc/group", GROUP), file("etc/hosts", ""), file("etc/resolv.conf", ""),
        file("etc/os-release", 'ID=moat-test\nNAME="moat test image"\n'),
    ]
    return entries


def busybox(extra_layers=(), **config):
    return Image([busybox_entries(), *extra_layers], {"Cmd": ["sh"], **config})


def wrong_digest():
    """One byte of the layer differs from what its digest says; the size is right."""
    image = busybox([[file("marker", "layer two\n" * 100)]])
    claimed = image.layers[1]["digest"]
    data = bytearray(image.blobs[claimed])
    data[len(data) // 2] ^= 1
    image.blobs[claimed] = bytes(data)
    return image


def truncated_layer():
    """The layer ends early: its size and digest name the whole, the blob is half of it."""
    image = busybox([[file("marker", bytes(range(256)) * 400)]])
    claimed = image.layers[1]["digest"]
    image.blobs[claimed] = image.blobs[claimed][: len(image.blobs[claimed]) // 2]
    return image


def truncated_tar():
    """Every digest is right, but the tar inside ends in the middle of a file."""
    whole = tar_of([file("big", bytes(range(256)) * 4000)])
    return Image([busybox_entries(), whole[:300000]], {"Cmd": ["sh"]})


def wrong_diff_id():
    """The config's diff_id of layer two is another content's."""
    image = busybox([[file("marker", "x\n")]])
    image.config["rootfs"]["diff_ids"] = [image.diff_ids[0], digest_of(b"something else")]
    return image


def not_gzip():
    """The media type says gzip, the blob is text."""
    image = busybox([[file("marker", "x\n")]])
    image.layers[1] = image.add_blob(b"this is not a gzip stream\n" * 20, image.layers[1]["mediaType"])
    return image


def evil(*entries):
    """busybox and a second layer written exactly as given."""
    return Image([busybox_entries(), list(entries)], {"Cmd": ["sh"]}, parents=False)


# Name of the file that the escapes try to write, in the directories they aim at. Tests look for it outside the root.
ESCAPED = "moat-escaped"


def traversal():
    return evil(file("../../../../../../../../tmp/" + ESCAPED, "out\n"))


def traversal_inside():
    return evil(directory("a"), file("a/../../../../../../../../tmp/" + ESCAPED, "out\n"))


def symlink_absolute():
    """`/out` points at the host's /tmp; a file is then written below it. In the image's root that is its own /tmp."""
    return evil(symlink("out", "/tmp"), file("out/" + ESCAPED, "out\n"))


def symlink_relative():
    return evil(symlink("out", "../../../../../../../../../../tmp"), file("out/" + ESCAPED, "out\n"))


def symlink_final():
    """A symbolic link, then a regular file of the same name: the link must be replaced, not followed."""
    return evil(symlink("leak", "/tmp/" + ESCAPED), file("leak", "out\n"))


def hard_link_outside():
    return evil(hard_link("stolen", "../../../../../../../../etc/passwd"))


def hard_link_through_symlink():
    """Aims at the host's /etc/hostname, which the image does not have."""
    return evil(symlink("e", "/etc"), hard_link("stolen", "e/hostname"))


def whiteout_traversal():
    """`.wh...` removes `..` if the name behind the prefix is trusted."""
    return evil(directory("d"), file("d/.wh...", ""), file("d/.wh..", ""))


def whiteout_through_symlink():
    """Removes the host's /tmp/moat-victim if the symlink is followed."""
    return evil(symlink("v", "/tmp"), file("v/.wh.moat-victim", ""))


def whiteouts():
    """Good: layer two removes a file and a directory's content, layer three brings one back."""
    return Image([
        busybox_entries() + [file("gone", "1\n"), file("back", "old\n"), file("dir/one", "1\n"), file("dir/two", "2\n"),
                             file("tree/deep/leaf", "1\n")],
        [file(".wh.gone", ""), file(".wh.back", ""), file("dir/.wh..wh..opq", ""), file("dir/three", "3\n"), file(".wh.tree", "")],
        [file("back", "new\n")],
    ], {"Cmd": ["sh"]})


def merged_usr():
    """Good: the lower layer has lib as a link to usr/lib, the upper one writes below lib, as Debian's images do."""
    return Image([
        busybox_entries() + [directory("usr/lib", mode=0o750), file("usr/lib/old", "old\n"), symlink("lib", "usr/lib")],
        [file("lib/new", "new\n"), file("lib/sub/leaf", "leaf\n")],
    ], {"Cmd": ["sh"]}, parents=False)


def hard_links():
    """Good: links within a layer, to a file of a lower layer, with modes and owners that stay."""
    owned = {"mode": 0o640, "uid": 33, "gid": 33}
    return Image([
        busybox_entries() + [file("one", "same\n", **owned), hard_link("two", "one", **owned), hard_link("sub/three", "one", **owned)],
        [hard_link("four", "one", **owned)],
    ], {"Cmd": ["sh"]})


def special_files():
    """Good or refused by name, never a device that opens: devices, a fifo, setuid, an xattr."""
    return Image([busybox_entries(), [
        device("dev-null", tarfile.CHRTYPE, 1, 3, 0o666), device("disk", tarfile.BLKTYPE, 8, 0),
        fifo("pipe"), file("setuid", "#!/bin/sh\nid -u\n", 0o4755), file("attr", "x\n", xattrs={"user.moat": "yes"}),
    ]], {"Cmd": ["sh"]})


def plain_layers():
    """Good: layers that are not compressed."""
    return Image([busybox_entries()], {"Cmd": ["sh"]}, compression="none")


def user_www():
    return busybox(User="www-data", WorkingDir="/var/www", Env=["PATH=/bin", "FROM_IMAGE=yes"], Entrypoint=["/bin/sh", "-c"],
                   Cmd=['echo "$(id -un) $PWD $FROM_IMAGE"'])


def pause():
    """A sandbox's own process, for runtimes that want one (containerd as the tests' reference)."""
    return busybox(Entrypoint=["/bin/sleep"], Cmd=["2000000000"])


IMAGES = {
    "busybox": busybox,
    "pause": pause,
    "plain-layers": plain_layers,
    "whiteouts": whiteouts,
    "merged-usr": merged_usr,
    "hard-links": hard_links,
    "special-files": special_files,
    "user": user_www,
    "wrong-digest": wrong_digest,
    "truncated-layer": truncated_layer,
    "truncated-tar": truncated_tar,
    "wrong-diff-id": wrong_diff_id,
    "not-gzip": not_gzip,
    "traversal": traversal,
    "traversal-inside": traversal_inside,
    "symlink-absolute": symlink_absolute,
    "symlink-relative": symlink_relative,
    "symlink-final": symlink_final,
    "hard-link-outside": hard_link_outside,
    "hard-link-through-symlink": hard_link_through_symlink,
    "whiteout-traversal": whiteout_traversal,
    "whiteout-through-symlink": whiteout_through_symlink,
}


def unpack_busybox(target):
    """The good image's root, for OCI bundles, by way of a temporary so that it is there whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    work = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(target)))
    os.chmod(work, 0o755)
    packed = os.path.join(work, "root.tar")
    with open(packed, "wb") as out:
        out.write(tar_of(busybox_entries()))
    root = os.path.join(work, "root")
    os.mkdir(root)
    with tarfile.open(packed) as archive:
        archive.extractall(root, numeric_owner=True)
    if os.path.isdir(target):
        shutil.rmtree(target)
    os.rename(root, target)
    shutil.rmtree(work)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list")
    for verb, last in (("archive", "file"), ("push", "target"), ("rootfs", "directory")):
        sub = verbs.add_parser(verb)
        sub.add_argument("name", choices=sorted(IMAGES))
        sub.add_argument(last)
        if verb == "archive":
            sub.add_argument("--ref", help="the image's reference; default moat.test/NAME:latest")
    options = parser.parse_args()
    if options.verb == "list":
        print("\n".join(IMAGES))
    elif options.verb == "archive":
        reference = options.ref or DEFAULT_REF.format(options.name)
        print(write_archive(options.file, {reference: IMAGES[options.name]()})[reference])
    elif options.verb == "push":
        registry, _, rest = options.target.partition("/")
        name, _, tag = rest.rpartition(":")
        if not name:
            parser.error("push: the target is HOST:PORT/REPOSITORY:TAG")
        print(push(IMAGES[options.name](), registry, name, tag))
    else:
        if options.name != "busybox":
            parser.error("rootfs: only busybox is unpacked by this program, which trusts its input")
        unpack_busybox(options.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
