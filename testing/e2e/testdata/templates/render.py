"""Render the golden files with Jinja2 itself, apart from llama.cpp's engine.

    python3 render.py SOURCE    # the directory of a llama.cpp source tree

The environment is the one in which Transformers renders chat templates, for
which they are written: sandboxed, blocks trimmed, with loop controls.
"""

import json
import pathlib
import sys

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


def fail(message):
    raise RuntimeError(message)


here = pathlib.Path(__file__).parent
source = pathlib.Path(sys.argv[1])
conversations = json.loads((here / "conversations.json").read_text("utf-8"))
for case in json.loads((here / "cases.json").read_text("utf-8")):
    name = case["template"]
    at = here / name if (here / name).exists() else source / "models" / "templates" / name
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.globals["raise_exception"] = fail
    env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    template = env.from_string(at.read_text("utf-8"))
    for conversation in conversations:
        golden = here / "golden" / f"{case['name']}-{conversation['name']}.txt"
        text = template.render(
            messages=conversation["messages"],
            add_generation_prompt=True,
            bos_token=case["bos"],
            **{"enable_thinking": True, **case.get("vars", {}), **conversation.get("vars", {})},
        )
        golden.write_bytes(text.encode("utf-8"))
