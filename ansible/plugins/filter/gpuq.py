"""Filters of the gpuqd playbooks."""

import base64
import hashlib
import glob
import hmac
import json
import os
import re

import yaml

from ansible.errors import AnsibleFilterError


def rabbitmq_hash(password, user):
    """The form in which RabbitMQ stores a password: base64 of salt and SHA-256.

    The salt follows from account and password, so that the same password gives
    the same definitions file at every run.

    Source: RabbitMQ's documentation, "Credentials and Passwords".
    """
    password = str(password)
    salt = hmac.new(password.encode(), user.encode(), hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def toml_value(value):
    """A value as TOML writes it within a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, where nothing is written as a surrogate pair.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        pairs = ("%s = %s" % (toml_value(str(k)), toml_value(v)) for k, v in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    raise AnsibleFilterError("no TOML for %r: want texts, numbers, booleans, lists and maps" % (value,))


def toml(sections):
    """Sections of keys as a TOML file; a key that is no map stands before them all."""
    lines = []
    for key, value in sections.items():
        if not isinstance(value, dict):
            lines.append("%s = %s" % (key, toml_value(value)))
    for section, keys in sections.items():
        if isinstance(keys, dict):
            if lines:
                lines.append("")
            lines.append("[%s]" % section)
            lines.extend("%s = %s" % (key, toml_value(value)) for key, value in keys.items())
    return "\n".join(lines) + "\n"


def without_keys(sections, dotted):
    """The sections without the keys that are named "section.key", and without those of which nothing is left."""
    left = {
        section: {key: value for key, value in keys.items() if "%s.%s" % (section, key) not in dotted}
        for section, keys in sections.items()
    }
    return {section: keys for section, keys in left.items() if keys}


def role_variables(roles):
    """The variables that the roles in a directory have defaults for."""
    found = set()
    for path in glob.glob(os.path.join(roles, "*", "defaults", "main.yml")):
        with open(path, encoding="utf-8") as file:
            found.update(re.findall(r"(?m)^(gpuq_[a-z0-9_]+):", file.read()))
    return sorted(found)


def argument_specs(roles):
    """The specifications of all variables of the roles in a directory, by variable."""
    found = {}
    for path in sorted(glob.glob(os.path.join(roles, "*", "meta", "argument_specs.yml"))):
        with open(path, encoding="utf-8") as file:
            for entry in yaml.safe_load(file)["argument_specs"].values():
                found.update(entry.get("options") or {})
    return found


def written_out(values):
    """The variables whose value is no template, which only its role could fill in."""
    return {name: value for name, value in values.items() if not (isinstance(value, str) and "{{" in value)}


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self):
        """Their names."""
        return {
            "gpuq_argument_specs": argument_specs,
            "gpuq_rabbitmq_hash": rabbitmq_hash,
            "gpuq_role_variables": role_variables,
            "gpuq_toml": toml,
            "gpuq_without_keys": without_keys,
            "gpuq_written_out": written_out,
        }
