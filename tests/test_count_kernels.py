"""Counting kernels: reading the list of a compiled program. Compiling needs other packages."""

import importlib.util
from pathlib import Path
import subprocess
import sys

import pytest

from scripts import count_kernels

ROOT = Path(__file__).parents[1]
HAS_PLUGIN = importlib.util.find_spec("jax_plugins") is not None

# A loop, then a loop with another one inside, as XLA lays such a list out.
LISTING = """\
000: kCommandBuffer [source       | next=004 (1)]
    001: kCopy         [source       | sink        ] kCopy
    002: kCustomKernel [source       | next=003 (1)] zeros grid: [1, 1, 1] threads: [128, 1, 1]
    003: kCustomKernel [prev=002 (1) | sink        ] project grid: [8, 1, 1] threads: [64, 1, 1]
004: kWhile         [prev=000 (1) | next=011 (1)]

condition:
    005: kCustomKernel [source | sink] is_done grid: [1, 1, 1] threads: [1, 1, 1]

  body:
    000: kCommandBuffer [source | sink]
        006: kCustomKernel [source       | next=007 (1)] product grid: [8, 1, 1]
        007: kCustomKernel [prev=006 (1) | sink        ] gates grid: [8, 1, 1]
        008: kAsyncStart   [prev=007 (1) | sink        ] stream=computation_stream[0], async_id=8
            010: kDynamicSliceFusion [source | sink] params=1, results=1
                009: kCopy [source | sink] kCopy

011: kWhile         [prev=004 (1) | next=018 (1)]

condition:
    012: kCustomKernel [source | sink] is_done grid: [1, 1, 1] threads: [1, 1, 1]

  body:
    013: kCopy          [source       | next=014 (1)] kCopy
    014: kWhile         [prev=013 (1) | next=000 (1)]

condition:
        015: kCustomKernel [source | sink] is_done grid: [1, 1, 1] threads: [1, 1, 1]

      body:
        016: kGemm [source       | sink        ] inner_product

    000: kCommandBuffer [prev=014 (1) | sink        ]
        017: kCustomKernel [source       | sink        ] after_inner grid: [8, 1, 1]

018: kCustomKernel [prev=011 (1) | sink        ] total grid: [1, 1, 1] threads: [32, 1, 1]
"""


def test_a_kernel_counts_for_its_innermost_loop():
    outside, bodies = count_kernels.read_sections(LISTING)
    assert outside.kernels == ["zeros", "project", "total"] and len(outside.copies) == 1
    assert [body.kernels for body in bodies] == [
        ["product", "gates"],
        ["after_inner"],
        ["inner_product"],
    ]
    assert [len(body.copies) for body in bodies] == [1, 1, 0]


def test_a_report_divides_by_the_steps_of_a_turn(capsys):
    one_layer = count_kernels.CASES["draw"]
    text = LISTING.partition("011: kWhile")[0]
    count_kernels.report(2 * text, one_layer, steps=4, names=False)
    printed = capsys.readouterr().out
    assert "forward: 2 kernels and 1 copies per turn of 4 time step(s): 0.5 kernels" in printed
    assert "backward: 2 kernels and 1 copies" in printed
    assert "outside of the loops: 4 kernels and 2 copies" in printed


def test_a_report_notes_unexpected_loops(capsys):
    count_kernels.report(LISTING, count_kernels.CASES["draw"], steps=1, names=False)
    assert "There are 3 loops" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            [],
            '"jax[cuda13]==0.11.2"',
            marks=pytest.mark.skipif(HAS_PLUGIN, reason="the plugin is installed here"),
        ),
        (["--case=drwa"], "Did you mean 'draw'?"),
        (["--schedule=sideways"], "schedule"),
        (["--schedule=plain", "--unroll=8"], "no --unroll=8"),
        (["--copies=0"], "copies"),
        (["draw"], "only flags"),
    ],
)
def test_a_mistake_ends_in_one_line(words, message):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.count_kernels", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
