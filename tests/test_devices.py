"""Runs on several devices, which XLA makes out of one CPU; test_parallel.py compares results."""

import importlib
from pathlib import Path

import jax
import pytest

import experiments
from ln.errors import InputError
from ln.training import train
from ln.training.devices import Spread, most, unseen_gpu, visible
from tests.commands import on_devices


@pytest.mark.slow
def test_a_run_resumes_on_other_devices(tmp_path):
    words = ["scripts.train", "--config=configs/mnist.py:tiny", "--config.norm=batch"]
    words += [f"--workdir={tmp_path / 'run'}", f"--config.data_dir={tmp_path}"]
    words += ["--config.batch_size=4", "--config.seeds=0,1"]
    for devices in (4, 1):
        done = on_devices(devices, "-m", *words)
        assert done.returncode == 0, done.stderr
        assert ("4 x cpu" in done.stdout) == (devices == 4)
        (tmp_path / "run" / "finished.json").unlink()
    assert "Resuming at step" in done.stdout


def test_several_processes_raise_if_one_would_have_no_share(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    devices = [object()] * 4
    with pytest.raises(InputError, match="multiple of 4 lanes.*batch_size=4 or 6;"):
        Spread.over(devices, 2, 5)
    with pytest.raises(InputError, match="batch_size=4;"):
        Spread.over(devices, 1, 3)
    with pytest.raises(InputError, match="--devices is for a single process"):
        visible(1)


@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("scale", ["paper", "small", "tiny"])
def test_every_run_of_every_sweep_fits_on_some_of_the_devices(name, scale):
    module = importlib.import_module(f"configs.{name}")
    for point in module.sweep():
        config = module.get_config(scale)
        config.update_from_flattened_dict(point)
        lanes, B = len(train.make_lanes(config)), config.batch_size
        used = [most(count, lanes, B) for count in range(1, 17)]
        assert used[0] == 1 and used == sorted(used)
        for n in set(used):
            assert any(lanes % a == 0 and B % (n // a) == 0 for a in range(1, n + 1) if n % a == 0)


def test_the_number_of_devices_can_be_limited():
    assert visible(1) == jax.devices()[:1]
    with pytest.raises(InputError, match="--devices=0: take a number from 1 to "):
        visible(0)


def test_a_gpu_that_jax_does_not_see_is_noticed(monkeypatch):
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    assert unseen_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden by the user
    assert not unseen_gpu()


@pytest.mark.slow
def test_a_run_names_the_devices_that_it_leaves_idle(tmp_path):
    """Figure 6 at batch size 4 has three lanes: six of eight devices fit."""
    words = ["scripts.train", "--config=configs/mnist.py:tiny", "--config.seeds=0,1,2"]
    words += ["--config.batch_size=4", f"--config.data_dir={tmp_path}"]
    done = on_devices(8, "-m", *words, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "6 x cpu; idle: cpu:6, cpu:7. To use them, " in done.stdout
    assert "of 8 lanes (config.seeds times config.lr), or config.batch_size=8" in done.stdout
    done = on_devices(8, "-m", *words, "--devices=2", f"--workdir={tmp_path / 'two'}")
    assert "2 x cpu\n" in done.stdout
