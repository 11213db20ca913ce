"""What denormal moments cost an Adam step on this CPU: `python benchmarks/denormals.py`; prints JSON.

10.5M weights without gradient, one thread, torch's fused Adam, as the SAC family steps.
"""

import json
import statistics
import time

import torch

REPEATS = 10


def main() -> None:
    """Time steps from normal moments and from denormal ones, in turn."""
    torch.set_num_threads(1)
    weights = [torch.zeros(1024, 1024, requires_grad=True) for _ in range(10)]
    adam = torch.optim.Adam(weights, fused=True)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    adam.step()  # makes the moments
    milliseconds: dict[str, list[float]] = {"normal": [], "denormal": []}
    for _ in range(REPEATS):
        for name, value in (("normal", 1e-20), ("denormal", 1e-41)):
            for state in adam.state.values():
                state["exp_avg"].fill_(value)
                state["exp_avg_sq"].fill_(value)
            start = time.perf_counter()
            adam.step()
            milliseconds[name].append(1000 * (time.perf_counter() - start))
    print(json.dumps({name: statistics.median(times) for name, times in milliseconds.items()}))


if __name__ == "__main__":
    main()
