"""Run benchmarks: `python -m benchmarks [name ...]`, all of them without a name."""

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

import benchmarks
from benchmarks.harness import environment, show

NAMES = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of: {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"), help="folder for the JSON files")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or NAMES:
        rows = importlib.import_module(f"benchmarks.{name}").run()
        show(name, rows)
        path = args.out / f"{name}.json"
        path.write_text(json.dumps({"environment": environment(), "rows": [r._asdict() for r in rows]}, indent=1))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
