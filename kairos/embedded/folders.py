"""The folders of a cluster: made, checked, closed to others.

Owns: their modes and owners.
Refuses: to change the mode of any folder which is not Kairos' own, and to use one that belongs to
another user.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from kairos.embedded import files
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError


def prepare(layout: Layout) -> None:
    """Make the data folder, or check that it is ours and closed to others."""
    folder = layout.data_dir
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_owner(folder)
        _tighten(layout)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the data folder {folder} cannot be used: {error.strerror}",
            hint="Choose a folder in which this user may write, or set KAIROS_DATABASE_URL.",
            data_dir=folder,
        ) from error


def name_instance(layout: Layout) -> None:
    """Give the folder its random name, once."""
    target = layout.data_dir / "instance"
    if files.read_text(target):
        return
    # Most data folders lie in a checkout, where one `git add .` would publish the passwords.
    (layout.data_dir / ".gitignore").write_text("*\n", encoding="ascii")
    draft = layout.data_dir / "instance.new"
    draft.unlink(missing_ok=True)
    files.write_private(draft, secrets.token_hex(16))
    draft.rename(target)


def _check_owner(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise EmbeddedPostgresError(
            f"the data folder {folder} belongs to uid {owner}, and this process runs as uid {os.geteuid()}",
            hint="Run as the owner of the folder, or choose another folder.",
            data_dir=folder,
        )


def _tighten(layout: Layout) -> None:
    """Close an open folder when it is empty or already ours; a folder of other things is left as it is."""
    folder = layout.data_dir
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o066:
        return
    if layout.users_lock.exists() or not any(folder.iterdir()):
        # The x bits stay: another account may run the server and have to pass through.
        folder.chmod(mode & 0o711 if layout.cluster.exists() else 0o700)
    elif mode & 0o022:
        raise EmbeddedPostgresError(
            f"the data folder {folder} holds other files and others may write to it (mode {mode:04o})",
            hint="Choose a folder that is for Kairos alone, such as .kairos.",
            data_dir=folder,
        )


def make_socket_dir(layout: Layout, uid: int, gid: int) -> Path:
    """Make the folder of the sockets, 0700 for the server's user, and refuse one that another user made."""
    folder = layout.socket_dir
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)
        if uid != os.geteuid():
            os.chown(folder, uid, gid)
    except FileExistsError:
        pass
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != uid or stat.S_IMODE(facts.st_mode) != 0o700:
        raise EmbeddedPostgresError(
            f"the socket folder {folder} is not a 0700 folder of uid {uid}",
            hint=f"Look who made it; when nobody uses it, remove {folder}.",
            data_dir=layout.data_dir,
        )
    return folder


def drop_socket_dir(layout: Layout, folder: Path) -> None:
    """Remove an empty socket folder that lies outside of the data folder."""
    if folder.parent != layout.home:
        try:
            folder.rmdir()
        except OSError:
            pass
