"""Before a test imports jax: compiled programs are kept from one run of the tests to the next, and
compiled in the fastest way. Tests trace and compile for longer than they compute (LOG.md).
"""

import gc
import os
from pathlib import Path
import re

CACHE = Path(__file__).parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE.resolve()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
)
gc.set_threshold(50_000, 20, 50)  # by default a seventh of the time goes by in search of garbage

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# The tests of the library check the shapes and dtypes in its signatures. Modules are named one by
# one, since ln.training has no such types.
jaxtyping.install_import_hook(
    [f"ln.{name}" for name in ("convert", "fused", "norm", "product", "rnn")], "beartype.beartype"
)
jaxtyping.config.update("jaxtyping_disable", True)
TYPED = {f"tests.test_{name}" for name in ("any_model", "convert", "norm", "precision", "rnn")}


@pytest.fixture(autouse=True)
def _types(request):
    """Check the types in the tests of the library that do not pass wrong values on purpose."""
    wrong = request.node.get_closest_marker("wrong_values")
    typed = getattr(request.module, "__name__", "") in TYPED and wrong is None
    jaxtyping.config.update("jaxtyping_disable", not typed)
    yield
    jaxtyping.config.update("jaxtyping_disable", True)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Prepare data sets in one folder for all tests and return it."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def variables(task):
    """Return the initial variables of the task of a module."""
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture
def float64():
    """Compute in float64 in a test."""
    with jax.enable_x64(True):
        yield


def pytest_make_parametrize_id(val):
    """Make short ids of plain words of text; those of bytes are numbered."""
    if isinstance(val, str):
        return re.sub(r"[^\w.=,]+", "-", val, flags=re.ASCII)[:35]
    return "bytes" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items):
    """Raise at ids that may differ between the processes of a run, which must agree on them."""
    ids = {item.name.partition("[")[2] for item in items}
    if wrong := [i for i in ids if len(i) > 80 or not i.isascii() or re.search(r"\\| at 0x", i)]:
        raise pytest.UsageError(f"Give short ids of plain ASCII to these tests: {wrong}")
