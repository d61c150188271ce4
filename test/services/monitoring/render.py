"""Renders a template of a role of ansible/, without Ansible, and prints it as JSON.

Usage: render.py ROLES ROLE[,ROLE...] TEMPLATE, with variables as a JSON object on
stdin. The template is the last role's, and sees the defaults and vars of all of them,
and before those what stdin has. A variable that takes more than Jinja, such as one
that asks other hosts' facts, is not there; a template that uses it fails.
"""

import json
import os
import sys

import jinja2
import jinja2.nativetypes
import yaml

roles, names, template = sys.argv[1:]
names = names.split(",")


def combine(first, *others, recursive=False):
    result = dict(first)
    for other in others:
        for key, value in other.items():
            if recursive and isinstance(value, dict) and isinstance(result.get(key), dict):
                value = combine(result[key], value, recursive=True)
            result[key] = value
    return result


def environment(kind, **options):
    env = kind(loader=jinja2.FileSystemLoader(os.path.join(roles, names[-1], "templates")),
               undefined=jinja2.StrictUndefined, **options)
    env.filters.update(
        combine=combine, to_json=json.dumps, zip=zip, dict2items=lambda d: [{"key": k, "value": d[k]} for k in d],
        ternary=lambda value, yes, no: yes if value else no)
    return env


native = environment(jinja2.nativetypes.NativeEnvironment)


def resolve(value, known):
    if isinstance(value, str):
        return native.from_string(value).render(known) if "{{" in value or "{%" in value else value
    if isinstance(value, list):
        return [resolve(item, known) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item, known) for key, item in value.items()}
    return value


def variables(given):
    """The roles' variables: each as soon as those that it uses are known."""
    known, waiting = dict(given), {}
    for role in names:
        for part in ("defaults", "vars"):
            path = os.path.join(roles, role, part, "main.yml")
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    waiting.update(yaml.safe_load(file) or {})
    waiting = {name: value for name, value in waiting.items() if name not in known}
    progress = True
    while waiting and progress:
        progress = False
        for name in list(waiting):
            try:
                known[name] = resolve(waiting[name], known)
            except (jinja2.TemplateError, TypeError):
                continue
            del waiting[name]
            progress = True
    return known


known = variables(json.load(sys.stdin))
text = environment(jinja2.Environment, trim_blocks=True, keep_trailing_newline=True).get_template(template).render(known)
json.dump(yaml.safe_load(text), sys.stdout)
