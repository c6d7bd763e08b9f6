#!/usr/bin/env python3
"""Holds the arrows between folders (ARCHITECTURE.md), by what each file includes.

    cri -> runtime -> {cgroups, fsgofer/protocol, kernel/control} -> kernel/base
    kernel -> fsgofer/protocol

Every quoted include is written from the root of the tree; only cri/ sees gRPC and protobuf; the sentry and
the gofer see none of the node side's libraries. Prints one line a violation; exit status 1 if there is any.
`--self-test` checks the checker.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Longest matching prefix wins: folder -> folders of ours that it may include besides itself.
ARROWS = {
    "kernel/base": (),
    "kernel/control": ("kernel/base",),
    "kernel": ("fsgofer/protocol",),
    "fsgofer/protocol": ("kernel/base",),
    "fsgofer": ("kernel/base",),
    "cgroups": ("kernel/base",),
    "runtime": ("cgroups", "fsgofer/protocol", "kernel/control", "kernel/base"),
    "cri": ("runtime", "cgroups", "kernel/control", "kernel/base"),
    "unit": ("kernel", "fsgofer", "cgroups", "runtime", "cri"),
    "e2e/syscalls": (),
    "e2e/bench": (),
}
# Inside kernel/: only the program itself sees its start-up code.
KERNEL_TOP = "kernel/boot/"

GRPC = re.compile(r"^(grpc|grpcpp|google/protobuf)/|\.pb\.h$")
NODE_SIDE = re.compile(
    r"^(spdlog|boost|nlohmann|CLI|httplib\.h|sqlite3\.h|archive|openssl|zstd)(/|_|\.|$)|^(httplib|sqlite3)\.h$")
# Plans are JSON, written by the node side: the one library of it that the sentry and the gofer see, and only there.
MESSAGE_FOLDERS = ("kernel/control/", "fsgofer/protocol/", "fsgofer/server/plan.")
# Made by the build, so not in the tree.
GENERATED = re.compile(r"\.pb\.h$|^stub_symbols\.h$")
# The stub is a freestanding program with an include path of its own, which is its folder and nothing else.
FREESTANDING = {"kernel/platform/stub.S": ("layout.h",), "kernel/platform/stub_start.c": ("layout.h",)}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def is_message_json(path, name):
    return name.startswith("nlohmann/") and path.startswith(MESSAGE_FOLDERS)


def folder_of(path):
    """The key of ARROWS that rules `path`, or None for files no rule speaks of."""
    fits = [f for f in ARROWS if path.startswith(f + "/")]
    return max(fits, key=len) if fits else None


def check(path, text, exists):
    """Yields (line, message) for each include in `text` that the arrows forbid."""
    folder = folder_of(path)
    top = path.split("/")[0]
    if path.endswith(".h") and "#pragma once" not in text:
        yield 1, "no #pragma once"
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        name = match.group(1) or match.group(2)
        sees_grpc = top == "cri" or path.startswith(("unit/cri/", "unit/fuzz/"))
        if GRPC.search(name) and not sees_grpc:
            yield number, f"<{name}>: only cri/ sees gRPC"
            continue
        if match.group(2):
            if top in ("kernel", "fsgofer") and NODE_SIDE.search(name) and not is_message_json(path, name):
                yield number, f"<{name}>: a library of the node side in {top}/"
            continue
        if GENERATED.search(name) or name in FREESTANDING.get(path, ()):
            continue
        if not exists(name):
            yield number, f'"{name}" is not a path from the root of the tree'
            continue
        if name.startswith(KERNEL_TOP) and top != "unit" and not path.startswith(KERNEL_TOP):
            yield number, f'"{name}": kernel/boot is the top of kernel/, nothing includes it'
            continue
        if folder is None or name.startswith(folder + "/"):
            continue
        if not any(name.startswith(allowed + "/") for allowed in ARROWS[folder]):
            yield number, f'"{name}": {folder}/ may not include it (may: {", ".join(ARROWS[folder]) or "itself only"})'


def sources():
    """Tracked and new files of the tree, what .gitignore names left out."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.h", "*.cc", "*.c", "*.S"],
        capture_output=True, text=True)
    if listed.returncode == 0:
        return sorted(set(listed.stdout.splitlines()))
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [n for n in names if n not in ("build", ".git")]
        found += [os.path.relpath(os.path.join(directory, f), ROOT)
                  for f in files if f.endswith((".h", ".cc", ".c", ".S"))]
    return sorted(found)


def self_test():
    """Each case: path, text, whether the checker must object."""
    cases = [
        ("kernel/mm/x.cc", '#include "kernel/base/result.h"', False),
        ("kernel/mm/x.cc", '#include "kernel/task/task.h"', False),
        ("kernel/fs/gofer/x.cc", '#include "fsgofer/protocol/messages.h"', False),
        ("kernel/fs/gofer/x.cc", '#include "fsgofer/server/server.h"', True),
        ("kernel/mm/x.cc", '#include "runtime/runtime.h"', True),
        ("kernel/mm/x.cc", "  #  include <nlohmann/json.hpp>", True),
        ("kernel/control/x.h", "#pragma once\n#include <nlohmann/json.hpp>", False),
        ("kernel/mm/x.cc", '#include "kernel/boot/loader.h"', True),
        ("kernel/boot/x.cc", '#include "kernel/boot/loader.h"', False),
        ("kernel/base/x.h", '#pragma once\n#include "kernel/mm/vma.h"', True),
        ("kernel/base/x.h", "#include <map>", True),
        ("kernel/control/x.h", '#pragma once\n#include "kernel/task/task.h"', True),
        ("runtime/x.cc", '#include "kernel/control/plan.h"', False),
        ("runtime/x.cc", '#include "kernel/task/task.h"', True),
        ("runtime/x.cc", "#include <grpcpp/grpcpp.h>", True),
        ("runtime/x.cc", '#include "cri/server/server.h"', True),
        ("cri/x.cc", '#include <grpcpp/grpcpp.h>\n#include "api.pb.h"', False),
        ("cri/x.cc", '#include "runtime/runtime.h"', False),
        ("cgroups/x.cc", '#include "runtime/error.h"', True),
        ("e2e/syscalls/x.cc", '#include "kernel/base/result.h"', True),
        ("kernel/mm/x.cc", '#include "vma.h"', True),
        ("kernel/platform/stub.S", '#include "layout.h"', False),
        ("kernel/platform/area.cc", '#include "layout.h"', True),
    ]
    wrong = 0
    for path, text, objects in cases:
        found = list(check(path, text, lambda name: name not in ("vma.h", "layout.h")))
        if bool(found) != objects:
            print(f"self-test: {path}: {text!r}: got {found}")
            wrong += 1
    return wrong


def main():
    if "--self-test" in sys.argv[1:]:
        return 1 if self_test() else 0
    count = 0
    files = sources()
    for path in files:
        absolute = os.path.join(ROOT, path)
        if not os.path.isfile(absolute):
            continue  # deleted, not yet committed
        with open(absolute, encoding="utf-8", errors="replace") as source:
            text = source.read()
        for line, message in check(path, text, lambda n: os.path.isfile(os.path.join(ROOT, n))):
            print(f"{path}:{line}: {message}")
            count += 1
    if not files:
        print("no source files found: the check would pass on an empty tree")
        return 1
    print(f"{len(files)} files, {count} violations")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
