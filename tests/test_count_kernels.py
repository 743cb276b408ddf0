"""Counting kernels: reading a compiled program. Compiling needs other packages."""

import importlib.util

import pytest

from scripts import count_kernels
from tests.commands import run

HAS_PLUGIN = importlib.util.find_spec("jax_plugins") is not None

# Two updates with a loop forward and a loop backward, as XLA writes them.
PROGRAM = """\
%forward (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], /*index=1*/f32[8]{0}) parameter(0)
  %product = f32[8]{0} custom-call(%x), custom_call_target="__cublas$gemm"
  %gates = f32[8]{0} fusion(%product), kind=kLoop, calls=%fused_add
  ROOT %copy.1 = f32[8]{0} copy(%gates)
}
%backward (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %d_gates = f32[8]{0} fusion(%arg), kind=kLoop, calls=%fused_add
}
%updates (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion-start = f32[8]{0} fusion-start(%arg), calls=%fused_add
  %fusion-done = f32[8]{0} fusion-done(%fusion-start)
  %while.1 = (s32[]) while(%t), body=%forward, op_name="jvp(M)/4_steps_per_turn/while", "known_trip_count":{"n":"5"}
  %while.2 = (s32[]) while(%t), body=%backward, op_name="transpose(jvp(M))/4_steps_per_turn/while", "known_trip_count":{"n":"5"}
  ROOT %adam = f32[8]{0} fusion(%while.2), kind=kLoop, calls=%fused_add
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %zeros = f32[8]{0} fusion(), kind=kLoop, calls=%fused_add
  ROOT %while.3 = (s32[]) while(%zeros), body=%updates, op_name="jit", "known_trip_count":{"n":"2"}
}
"""  # noqa: E501


def test_a_kernel_counts_for_its_innermost_loop():
    *loops, program = count_kernels.read_program(PROGRAM)
    assert [(loop.way, loop.turns, loop.kernels, loop.copies) for loop in loops] == [
        ("forward", 5, 2, 1),
        ("backward", 5, 1, 0),
        ("training steps", 2, 1, 1),
    ]
    assert program.kernels == 1
    assert program.launches == 1 + 2 * (1 + 5 * (2 + 1))


def test_a_report_divides_by_the_steps_of_a_turn(capsys):
    count_kernels.report(PROGRAM, updates=2)
    printed = capsys.readouterr().out
    assert "2 kernels and 1 copies a turn of 4 time step(s), 0.5 kernels a step; 5" in printed
    assert "training steps: 1 kernels and 1 copies a turn; 2 turn(s)" in printed
    assert "16 kernels an update" in printed


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PLUGIN, reason="needs the CUDA wheels")
@pytest.mark.parametrize(
    "experiment, lines",
    [
        ("mnist", ["training steps: 47 kernels"]),
        ("sequential_mnist", ["4.4 kernels a step", "5.4 kernels a step"]),
        ("handwriting", [f"{n} kernels a step" for n in (8.6, 3.5, 6.8, 12.6)]),
    ],
)
def test_no_kernel_is_added(experiment, lines):
    printed = run("scripts.count_kernels", f"--experiment={experiment}").stdout
    assert all(line in printed for line in lines), printed
