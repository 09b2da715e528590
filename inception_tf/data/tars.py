"""Tar files read in place: where every member's bytes lie, and those bytes."""

import dataclasses
import io
import os
import tarfile

from inception_tf.errors import DataError

_BLOCK_BYTES = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its path there, and the place of its bytes in the outermost file."""

    path: str
    offset: int
    num_bytes: int


def list_members(path, within: Member | None = None) -> list[Member]:
    """The regular files of an uncompressed tar, in their order.

    Reads one header of 512 bytes a member: about 45 s for a million that are cached.

    Args:
      path: a tar file.
      within: a member of that file which is a tar itself and is listed instead.

    Raises:
      DataError: no tar, a compressed one, or one that is cut short.
    """
    name = f"{within.path} in {path}" if within else str(path)
    members = []
    try:
        with open(path, "rb") as stream:
            start = within.offset if within else 0
            size = within.num_bytes if within else os.path.getsize(path)
            with tarfile.open(fileobj=_Window(stream, start, size), mode="r:") as archive:
                for member in archive:
                    # tarfile keeps every member it has met, ten times the size of ours.
                    archive.members.clear()
                    if member.isreg() and not member.issparse():
                        inner = member.name.removeprefix("./")
                        members.append(Member(inner, start + member.offset_data, member.size))
                    elif not member.isdir():
                        raise DataError(
                            "A tar of images must hold files and folders, no links.",
                            received=f"{member.name} in {name}",
                            remedy="Pack it with: tar --dereference --hard-dereference -cf ...",
                        )
                # Where the file is cut between two members tarfile sees nothing amiss.
                stream.seek(start + archive.offset)
                is_whole = archive.offset < size and not any(stream.read(_BLOCK_BYTES))
    except (tarfile.TarError, EOFError) as error:
        raise _not_whole(name, error) from None
    except OSError as error:
        raise DataError("A tar file must be readable.",
                        received=f"{error.strerror}: {path}") from None  # fmt: skip
    if not is_whole:
        raise _not_whole(name, "its end-of-archive block is missing")
    return members


def read_member(path, *, offset: int, num_bytes: int, name: str) -> bytes:
    """The bytes of one member.

    Raises:
      DataError: the file cannot be read, or ends inside the member.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(offset)
            data = stream.read(num_bytes)
    except OSError as error:
        raise DataError("A tar file must be readable.",
                        received=f"{error.strerror}: {path}") from None  # fmt: skip
    if len(data) != num_bytes:
        raise DataError("The tar file must be whole.",
                        received=f"{path} ends inside {name}")  # fmt: skip
    return data


def _not_whole(name, reason):
    return DataError(
        "The source must be a folder or a whole tar file.",
        received=f"{name}: {reason}",
        remedy="Copy or download it again.",
    )


class _Window(io.RawIOBase):
    """A run of bytes of an open file, as a file of its own."""

    def __init__(self, stream, start, size):
        super().__init__()
        self._stream, self._start, self._size = stream, start, size
        self._place = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._place

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer):
        count = max(0, min(len(buffer), self._size - self._place))
        self._stream.seek(self._start + self._place)
        data = self._stream.read(count)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
