"""Starts the model server in a container, after the model's bytes were compared with those that were registered.

It stands beside `server`, `model` and `identity.json`, imports nothing of mlcicd, and keeps to Python 3.9. Arguments
are the server's, and go before those of `identity.json`. Exit code 3: these are not the registered bytes.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

EXIT_OTHER_BYTES = 3


def digest_tree(folder: Path) -> str:
    """As mlcicd.core.digests.digest_tree: over the relative paths and contents of all files; links are refused."""
    entries: list[tuple[str, str]] = []
    for file in sorted(folder.rglob("*")):
        if file.is_symlink():
            raise ValueError(f"a symbolic link stands in the model: {file}")
        if not file.is_dir():
            sha = hashlib.sha256()
            with file.open("rb") as content:
                for chunk in iter(lambda: content.read(1 << 20), b""):
                    sha.update(chunk)
            entries.append((file.relative_to(folder).as_posix(), f"sha256:{sha.hexdigest()}"))
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def main() -> None:
    here = Path(__file__).resolve().parent
    identity = json.loads((here / "identity.json").read_text(encoding="utf-8"))
    try:
        found = digest_tree(here / "model")
    except (OSError, ValueError) as error:
        print(f"mlcicd: {error}", file=sys.stderr)
        raise SystemExit(EXIT_OTHER_BYTES) from None
    for wanted in (identity["digest"], os.environ.get("MLCICD_MODEL_DIGEST")):
        if wanted and wanted != found:
            print(f"mlcicd: this is not the registered model: {found}, and not {wanted}", file=sys.stderr)
            raise SystemExit(EXIT_OTHER_BYTES)
    server = here / "server" if (here / "server").is_dir() else here / "server.py"
    own = [f"--name={identity['name']}", f"--version={identity['version']}", "--host=0.0.0.0", "--port=8080"]
    # Where callers need a certificate, the platform's probes, which have none, ask another port.
    probe = os.environ.get("MLCICD_PROBE_PORT")
    own += [f"--probe-port={probe}"] if probe else []
    argv = [sys.executable, str(server), f"--model={here / 'model'}", *own, *sys.argv[1:]]
    os.execv(sys.executable, argv)  # noqa: S606  (the server takes this process's place, and its signals)


if __name__ == "__main__":
    main()
