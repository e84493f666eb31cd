"""Writes what is made from the command line's options and the configuration's models, so that nothing restates them.

    python tools/generate.py           write
    python tools/generate.py --check   say what differs, and exit 1

Made: `action.yml`, `actions/*/action.yml` and their `action-types.yml`; the tables of inputs and outputs in README.md;
docs/configuration.md; schemas/*.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from mlcicd.cli import ACTIONS, COMMON_OUTPUTS, cli
from mlcicd.config.base import Section
from mlcicd.config.schema import json_schema as config_schema
from mlcicd.core.verdict import json_schema as verdict_schema
from mlcicd.evaluation.budgets import NAMES as BUDGETS
from mlcicd.evaluation.metrics import names as metric_names
from mlcicd.evaluation.problem import TASKS

ROOT = Path(__file__).resolve().parent.parent
NOTE = "# Made by tools/generate.py from the options of `mlcicd {command}`: edit those, and run `make generate`.\n"
PIPELINE = "run"
ICONS = {
    "validate-data": "check-square",
    "train": "cpu",
    "evaluate": "bar-chart-2",
    "register": "archive",
    "deploy": "upload-cloud",
    "canary": "git-branch",
    "monitor": "activity",
    "rollback": "rotate-ccw",
    "report": "file-text",
    "run": "repeat",
}
TOKENS = {
    "report": "Token that writes the comment; needs pull-requests: write.",
    "deploy": "Token that reads who approved the run, where deploy.mode is delivery; needs actions: read.",
}
SETUP_INPUTS = {
    "python": {
        "description": "Interpreter (3.11 or newer) that mlcicd's private environment is made with. "
        "The first one found when empty.",
        "default": "",
    },
    "isolated": {
        "description": "false: run mlcicd from the environment of the input python, where you installed it.",
        "default": "true",
    },
}


def inputs(command: click.Command) -> dict[str, dict[str, Any]]:
    """Inputs of an action: the options that have an environment variable of ours."""
    found: dict[str, dict[str, Any]] = {}
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or not str(parameter.envvar or "").startswith("MLCICD_INPUT_"):
            continue
        name = parameter.opts[0].removeprefix("--")
        default = "false" if parameter.is_flag else str(parameter.default or "")
        found[name] = {"description": parameter.help, "default": default, "flag": parameter.is_flag}
    return found


def outputs(name: str) -> dict[str, str]:
    return {**COMMON_OUTPUTS, **ACTIONS[name].outputs}


def action_file(name: str) -> str:
    spec = ACTIONS[name]
    command = cli.commands[name]
    shared = "actions/_shared" if name == PIPELINE else "../_shared"
    own = inputs(command)
    env = {f"MLCICD_INPUT_{key.upper().replace('-', '_')}": f"${{{{ inputs.{key} }}}}" for key in own}
    document: dict[str, Any] = {
        "name": "mlcicd" if name == PIPELINE else f"mlcicd {name}",
        "description": spec.description,
        "author": "mlcicd",
        "branding": {"icon": ICONS[name], "color": "blue"},
        "inputs": {
            **{
                k: {"description": v["description"], "required": False, "default": v["default"]} for k, v in own.items()
            },
            **{k: {**v, "required": False} for k, v in SETUP_INPUTS.items()},
        },
        "outputs": {
            key: {"description": text, "value": f"${{{{ steps.stage.outputs.{key} }}}}"}
            for key, text in outputs(name).items()
        },
    }
    if "token" in spec.extras:
        document["inputs"]["token"] = {
            "description": TOKENS[name],
            "required": False,
            "default": "${{ github.token }}",
        }
        env["GITHUB_TOKEN"] = "${{ inputs.token }}"  # noqa: S105  (an expression, not a token)
    document["runs"] = {
        "using": "composite",
        "steps": [
            {
                "id": "setup",
                "shell": "bash",
                "env": {
                    "MLCICD_INPUT_PYTHON": "${{ inputs.python }}",
                    "MLCICD_INPUT_ISOLATED": "${{ inputs.isolated }}",
                },
                "run": f'exec bash "$GITHUB_ACTION_PATH/{shared}/setup.sh"',
            },
            {
                "id": "stage",
                "shell": "bash",
                "env": {
                    **env,
                    "MLCICD_PYTHON_OF_ACTION": "${{ steps.setup.outputs.python }}",
                    "MLCICD_PRIVATE": "${{ steps.setup.outputs.private }}",
                },
                "run": f'exec bash "$GITHUB_ACTION_PATH/{shared}/run.sh" {name}',
            },
        ],
    }
    return NOTE.format(command=name) + dump(document)


def types_file(name: str) -> str:
    """Input and output types, as the github-actions-typing project reads them."""
    own = inputs(cli.commands[name])
    kinds = {key: {"type": "boolean" if value["flag"] else "string"} for key, value in own.items()}
    kinds |= {"python": {"type": "string"}, "isolated": {"type": "boolean"}}
    if "token" in ACTIONS[name].extras:
        kinds["token"] = {"type": "string"}
    results: dict[str, Any] = {key: {"type": "string"} for key in outputs(name)}
    results["exit-code"] = {"type": "integer"}
    return NOTE.format(command=name) + dump({"inputs": kinds, "outputs": results})


def dump(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)


def readme_tables() -> str:
    taken = {name: inputs(cli.commands[name]) for name in ACTIONS}
    first = next(iter(taken.values()))
    shared = {key: value for key, value in first.items() if all(own.get(key) == value for own in taken.values())}
    parts = []
    for name, every in taken.items():
        uses = "mlcicd/mlcicd@v1" if name == PIPELINE else f"mlcicd/mlcicd/actions/{name}@v1"
        parts += [f"#### `{uses}`", "", ACTIONS[name].description, ""]
        own = {key: value for key, value in every.items() if key not in shared}
        if own:
            parts += [*_input_table(own), ""]
        if ACTIONS[name].outputs:
            parts += ["| output | |", "|---|---|"]
            parts += [f"| `{key}` | {_cell(text)} |" for key, text in ACTIONS[name].outputs.items()]
            parts.append("")
    common = ["Every action takes:", "", *_input_table({**shared, **SETUP_INPUTS})]
    common += ["", "and gives, on failure too:", "", "| output | |", "|---|---|"]
    common += [f"| `{key}` | {_cell(text)} |" for key, text in COMMON_OUTPUTS.items()]
    return "\n".join([*common, "", *parts]).rstrip() + "\n"


def _input_table(own: dict[str, Any]) -> list[str]:
    rows = [f"| `{key}` | {_code(value['default'])} | {_cell(value['description'])} |" for key, value in own.items()]
    return ["| input | default | |", "|---|---|---|", *rows]


def configuration_page() -> str:
    """docs/configuration.md: every key of mlcicd.yaml, from the models."""
    schema = config_schema()
    lines = [
        "# mlcicd.yaml",
        "",
        "Made by `tools/generate.py` from the configuration's models. The JSON Schema is `schemas/mlcicd.schema.json` "
        "(`mlcicd schema config` prints it).",
        "",
        schema["description"],
        "",
        "Values may use `${NAME}` and `${NAME:-default}` from the environment; `$$` is a dollar. Unknown keys, "
        "duplicate keys and YAML aliases are errors. `profiles.<name>` overrides values with `--profile <name>`.",
        "",
    ]
    done: set[str] = set()
    models = _models(Section)

    def section(title: str, node: dict[str, Any]) -> None:
        node = {**node, **node.get("anyOf", [{}])[0]}  # what may be written shorter, as text
        lines.extend(
            [f"## {title}", "", node.get("description", ""), "", "| key | type | default | |", "|---|---|---|---|"]
        )
        nested = []
        required = node.get("required", [])
        for key, value in node.get("properties", {}).items():
            kind, reference = _kind(value)
            if reference and "anyOf" in schema["$defs"][reference]:
                kind = " or ".join(_kind(choice)[0] for choice in schema["$defs"][reference]["anyOf"])
            made = models.get(node.get("title", ""), {}).get(key)
            default = "required" if key in required else _code(_default(value if made is None else {"default": made}))
            text = value.get("description") or (schema["$defs"][reference].get("description", "") if reference else "")
            lines.append(f"| `{key}` | {kind} | {default} | {_cell(text)} |")
            if reference and reference not in done:
                done.add(reference)
                nested.append((key, reference))
        lines.append("")
        for key, reference in nested:
            section(f"{title}.{key}" if title != "Top level" else key, schema["$defs"][reference])

    section("Top level", schema)
    lines.extend(["## Metrics", "", "Names under `evaluate.gates` and in slices, by task:", ""])
    for task in TASKS:
        lines.append(f"- {task}: {', '.join(f'`{name}`' for name in metric_names(task))}")
    lines.append(f"- budgets (`max` only): {', '.join(f'`{name}`' for name in BUDGETS)}")
    return "\n".join(lines).rstrip() + "\n"


def _models(base: type[Section]) -> dict[str, dict[str, list[Any]]]:
    """Section to its keys whose default is a list that is made anew each time, which a JSON Schema does not tell."""
    found = {}
    for model in base.__subclasses__():
        made = {
            field.alias or name: field.get_default(call_default_factory=True)
            for name, field in model.model_fields.items()
            if field.default_factory is not None
        }
        plain = {key: value for key, value in made.items() if isinstance(value, list) and not any(map(_nested, value))}
        found[model.__name__] = plain
        found |= _models(model)
    return found


def _nested(value: Any) -> bool:
    return not isinstance(value, str | int | float)


def _kind(value: dict[str, Any]) -> tuple[str, str]:
    reference = re.search(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(value))
    choices = [c for c in value.get("anyOf", [value]) if c.get("type") != "null"]
    choice = choices[0]
    if "enum" in choice:
        return " or ".join(f"`{item}`" for item in choice["enum"]), ""
    if "const" in choice:
        return f"`{choice['const']}`", ""
    kind = choice.get("type", "mapping")
    if kind == "array":
        kind = "list"
    elif kind == "object":
        kind = "mapping"
    return kind, reference.group(1) if reference else ""


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, "", [], {}) or isinstance(default, dict) else json.dumps(default)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}: made by tools/generate.py -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"README.md has lost its markers {start} ... {end}")
    return text[: text.index(start) + len(start)] + "\n\n" + content + "\n" + text[text.index(end) :]


def wanted() -> dict[Path, str]:
    files = {}
    for name in ACTIONS:
        folder = ROOT if name == PIPELINE else ROOT / "actions" / name
        files[folder / "action.yml"] = action_file(name)
        files[folder / "action-types.yml"] = types_file(name)
    files[ROOT / "schemas" / "mlcicd.schema.json"] = json.dumps(config_schema(), indent=2) + "\n"
    files[ROOT / "schemas" / "verdict.schema.json"] = json.dumps(verdict_schema(), indent=2) + "\n"
    files[ROOT / "docs" / "configuration.md"] = configuration_page()
    readme = ROOT / "README.md"
    files[readme] = between(readme.read_text(encoding="utf-8"), "actions", readme_tables())
    return files


def main() -> int:
    files = wanted()
    different = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in different:
            print(f"{path.relative_to(ROOT)} is not what the code says: run `make generate`")
        return 1 if different else 0
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
