"""Filters of the role packages: the files on the controller that a product comes from.

The files are those that the inventory names or, where it names none, the product's
of a bundle (packaging/bundle.sh), whose manifest has lines of sha256sum: the digest,
two blanks, and the path below the bundle.
"""

import functools
import glob
import hashlib
import os
import re

from ansible.errors import AnsibleFilterError

LINE = re.compile(r"([0-9a-f]{64})  ([a-z0-9_]+)/([A-Za-z0-9][^/\s]*\.deb)$")


@functools.lru_cache(maxsize=None)
def digest(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def manifest(bundle, product):
    """The product's files by the manifest, as (path, digest)."""
    with open(os.path.join(bundle, "manifest.sha256"), encoding="utf-8") as file:
        found = (LINE.match(line.rstrip("\n")) for line in file)
        return [(os.path.join(bundle, product, m[3]), m[1]) for m in found if m and m[2] == product]


def named_problems(patterns, product):
    """What is wrong with files that the inventory names."""
    found = []
    for pattern in patterns:
        count = len(glob.glob(pattern))
        if count != 1:
            found.append(
                "%s is %d files on the controller, and has to be one: build it (make packages), or correct "
                "gpuq_%s_files." % (pattern, count, product)
            )
    return found


def problems(patterns, product, names, bundle):
    """Why the packages that are called names cannot be installed from these files."""
    if patterns:
        return named_problems(patterns, product)
    if not bundle or not os.path.isfile(os.path.join(bundle, "manifest.sha256")):
        return [
            'The packages of %s are to come from files, and gpuq_%s_files names none; gpuq_bundle_dir is "%s", which has '
            "no manifest.sha256 on the controller. Name the files, or the directory that make bundle has made, or "
            "choose another source." % (product, product, bundle)
        ]
    files = manifest(bundle, product)
    found = []
    for name in (name.split("=")[0] for name in names):
        if not any(os.path.basename(path).startswith(name + "_") for path, _ in files):
            found.append(
                "The bundle %s has no package %s of %s: make it anew with it, name files (gpuq_%s_files), or choose "
                "another source." % (bundle, name, product, product)
            )
    for path, want in files:
        state = "not what manifest.sha256 says" if os.path.isfile(path) else "missing"
        if state == "missing" or digest(path) != want:
            found.append(
                "%s is %s: it was damaged or changed on its way. Copy the bundle again, or make it anew." % (path, state)
            )
    return found


def files(patterns, product, bundle):
    """The files that a product comes from: path, name and digest of each."""
    if patterns:
        paths = [(glob.glob(pattern) or [pattern])[0] for pattern in patterns]
        return [{"path": path, "name": os.path.basename(path), "digest": digest(path)} for path in paths]
    try:
        listed = manifest(bundle, product)
    except OSError as error:
        raise AnsibleFilterError("the bundle %s cannot be read: %s" % (bundle, error)) from error
    return [{"path": path, "name": os.path.basename(path), "digest": want} for path, want in listed]


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self):
        """Their names."""
        return {"gpuq_package_files": files, "gpuq_package_problems": problems}
