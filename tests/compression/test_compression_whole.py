"""Whole programs: models of wild weights, memory that does not grow, and compressions that are killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from compression_cases import CASES, chained, codec, unchained

from lvae_torch.compression.chain import Chain
from lvae_torch.compression.compressor import Compressor
from lvae_torch.errors import CfgError, DataError

WILD = [2.0, 30.0, 1e4]


@pytest.mark.parametrize("size", [WILD[0], *(pytest.param(size, marks=pytest.mark.slow) for size in WILD[1:])])
@pytest.mark.parametrize("name", CASES)
def test_models_of_wild_weights_never_decode_wrongly(name: str, size: float) -> None:
    """Certain pixels, scales at their bounds, posteriors far from their priors: right, or refused by name."""
    case = CASES[name]
    model, levels = case.model(), case.levels(14)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + size * torch.randn(weight.shape, generator=generator).abs())
    try:
        code, bits_back = codec(model, case, levels)
        chain = Chain(code, case.shape, batch=4)
        words, _, _ = chained(chain, levels, min(bits_back, 300))
    except (CfgError, DataError) as error:
        assert "not numbers" in str(error) or "cannot compress" in str(error)
        return
    assert np.array_equal(unchained(chain, words, len(levels)), levels)


def run(script: str, *arguments: str) -> subprocess.Popen[str]:
    code = "import sys; sys.path.insert(0, 'tests')\n" + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, stdout=subprocess.PIPE)


MEMORY = """
    import resource
    from pathlib import Path
    import numpy as np
    from compression_cases import CASES, Array
    from lvae_torch.compression.compressor import Compressor, Contents

    class Endless(Array):
        def __len__(self):
            return int(sys.argv[1])

        def levels(self, first, n):
            return self.values[np.arange(first, first + n) % len(self.values)]

    case = CASES["spatial bernoulli"]
    by, path, n = Compressor(case.model(), 2), Path(sys.argv[2]), 0
    by.compress(Endless(case.levels(1000)), path, Contents("a test"), batch=512)
    with by.opened(path) as (_, groups):
        for levels in groups:
            n += len(levels)
    assert n == int(sys.argv[1])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Ten times as many images, whose levels alone would take 18 MiB more, take at most 8 MiB more."""
    peaks = []
    for n in (4_096, 10 * 4_096):
        process = run(MEMORY, str(n), str(tmp_path / f"{n}.lvz"))
        out, _ = process.communicate(timeout=1200)
        assert process.returncode == 0
        peaks.append(int(out))
    assert peaks[1] - peaks[0] < 8 * 2**10, peaks


KILLED = """
    from pathlib import Path
    from compression_cases import CASES, Array
    from lvae_torch.compression.compressor import Compressor, Contents

    case = CASES["very deep 8 bits"]
    source = Array(case.levels(400))
    print("ready", flush=True)
    Compressor(case.model(), 256).compress(source, Path(sys.argv[1]), Contents("a test"), batch=8)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_compression_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    """Killed at ten moments: there is no archive, or the whole one."""
    case, n_killed = CASES["very deep 8 bits"], 0
    for i in range(10):
        path = tmp_path / f"{i}.lvz"
        process = run(KILLED, str(path))
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.15 * i)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if path.exists():
            with Compressor(case.model(), 256).opened(path) as (_, groups):
                assert np.array_equal(np.concatenate(list(groups)), case.levels(400))
        else:
            n_killed += 1
        for rest in tmp_path.glob("*.tmp"):
            with pytest.raises(DataError), Compressor(case.model(), 256).opened(rest) as (_, groups):
                list(groups)
            rest.unlink()
    assert n_killed
