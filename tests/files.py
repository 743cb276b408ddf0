"""Folders and archives that tests are about."""

import gzip
import io
import lzma
import tarfile
import zipfile


def lay(folder, files):
    """Write files, path -> contents, into a folder; return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted({name.rsplit("/", 1)[0] for name in files if "/" in name}):
            folder = tarfile.TarInfo(f"./{name}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PACKED = {
    ".zip": zipped,
    ".tar": tar,
    ".tar.gz": lambda files: gzip.compress(tar(files)),
    ".tar.xz": lambda files: lzma.compress(tar(files)),
}
