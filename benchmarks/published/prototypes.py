"""Does another network recognise prototypes? `python -m benchmarks.published.prototypes [seeds]`.

Activation maximization with an expert (Montavon, Samek and Müller 2018, section 3): ten digits climbed in network
A, read by network B, which was trained from another seed on digits that A has not seen. How strengths are chosen
without B is said in `examples/inside_prototypes.py`.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import inside_prototypes


def main(seeds: int = 5) -> None:
    """Print a line a seed, then the counts over all."""
    counts: dict[str, list[int]] = {}
    for seed in range(seeds):
        found, components = inside_prototypes.compute(seed)
        cells = []
        for term, some in found.items():
            counts.setdefault(term, []).append(some.recognised)
            labels, apart = inside_prototypes.nearest(some.images)
            near = f"nearest {(labels == np.arange(10)).sum()} at {apart.mean():.2f}"
            p = np.diag(some.b).mean()
            cells.append(f"{term} {some.recognised} (strength {some.strength:g}, p {p:.2f}, {near})")
        print(f"seed {seed}, {components} components: {'; '.join(cells)}", flush=True)
    for term, some in counts.items():
        print(f"{term}: B recognises {sum(some)} of {10 * len(some)}, at least {min(some)} of 10")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
