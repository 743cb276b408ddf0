"""Downloads by tensorflow-datasets, which knows the SHA-256 of each file."""

import importlib
import logging
from pathlib import Path
import textwrap

from ln.errors import InputError

RETRIES = 1  # with ten, the default, a machine without network waits for minutes
SECONDS = 5  # to wait for the server's first answer


def download(name: str, url: str, files: tuple[str, ...], folder: Path) -> None:
    """Download the original files of a data set into a folder.

    Args:
        name: the data set, here and in tensorflow-datasets.
        url: the folder on the web.
        files: their names in it.
        folder: where to put them.

    Raises:
        InputError: no network, no such files, a file of another digest, or tensorflow-datasets is
            missing.
    """
    if not files:
        raise InputError(f"No command downloads {name}; see {url}.")
    try:
        importlib.import_module("importlib_resources")  # tfds needs it and does not declare it
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import downloader
    except ImportError as error:
        raise InputError(
            f"Downloading needs the packages in requirements.txt ({error})."
        ) from error
    downloader.MAX_RETRIES = RETRIES
    tfds.disable_progress_bar()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else each retry is a warning
    try:
        # tfds would wait without end for a server that a firewall hides.
        requests.head(url + files[0], timeout=SECONDS).raise_for_status()
        digests = tfds.builder_cls(name).url_infos
        manager = tfds.download.DownloadManager(
            download_dir=folder / "tfds", dataset_name=name, url_infos=digests
        )
        for file in files:  # one by one, so that none is running when another has failed
            print(f"{name}: downloading {url}{file}")
            Path(manager.download(url + file)).rename(folder / file)
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise InputError(f"{url}{file} is not the original file of {name}.") from error
    except (requests.RequestException, tfds.download.DownloadError, OSError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise InputError(f"Cannot download {url} ({reason}).") from error
