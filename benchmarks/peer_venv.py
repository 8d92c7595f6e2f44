"""The virtual environment of the peers, whose pins clash with ours: made by the benchmark, kept for the next run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FOLDER = Path.home() / ".cache" / "hpcvideo" / "benchmarks"


@dataclass(frozen=True)
class PeerVenv:
    """An environment with what could be installed. `errors`: why a peer is missing, by its name."""

    folder: Path
    errors: dict[str, str]
    versions: dict[str, str]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next((self.folder / "lib").glob("python3*/site-packages"))


def pinned(names: Sequence[str]) -> list[str]:
    """Requirements at the versions of constraints.txt, so that both sides decode with the same libraries."""
    pins = dict(line.split("==") for line in (_ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return [f"{name}=={pins[name]}" for name in names]


def make_peer_venv(
    parent: Path,
    base: Sequence[str],
    peers: Mapping[str, str],
    probes: Mapping[str, str],
    scripts: Path,
    tell: Callable[[str], None],
) -> PeerVenv:
    """The environment for `base` and each of `peers` (name -> requirement), from the cache where it is whole.

    A peer whose installation fails is named in `errors` and tried again at the next run; where the base fails, all are.
    `probes`: Python that must run, with the modules of `scripts` at hand, before a peer counts as installed.
    """
    key = hashlib.sha256(json.dumps([sys.version, list(base), dict(peers)]).encode()).hexdigest()[:12]
    folder = parent / f"peers-{key}"
    stamp = folder / "peers.json"
    if stamp.exists():
        return PeerVenv(folder, {}, json.loads(stamp.read_text()))
    tell(f"installing the peers into {folder} (once)")
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    venv = PeerVenv(folder, {}, {})
    if failure := _install(venv, base):
        return PeerVenv(folder, dict.fromkeys(peers, failure), {})
    errors, versions = {}, {}
    for name, requirement in peers.items():
        # The base again: no peer may move the versions of torch and of the JPEG library.
        failure = _install(venv, [requirement, *base]) or _run(
            [venv.python, "-c", f"import sys; sys.path.insert(0, {str(scripts)!r}); {probes[name]}"]
        )
        if failure:
            errors[name] = failure
        else:
            show = f"from importlib.metadata import version; print(version({requirement.split('==')[0]!r}))"
            versions[name] = subprocess.run([venv.python, "-c", show], capture_output=True, text=True).stdout.strip()
    if not errors:
        stamp.write_text(json.dumps(versions))
    return PeerVenv(folder, errors, versions)


def ffmpeg_of_pyav(packages: Path, target: Path) -> Path:
    """A folder with the FFmpeg libraries of PyAV's wheel under the names that other programs look for.

    TorchCodec brings no FFmpeg; this one needs no root, and is the very one that PyAV decodes with.
    """
    target.mkdir(parents=True)
    for library in sorted((packages / "av.libs").iterdir()):
        (target / library.name).symlink_to(library)
        stem, _, rest = library.name.partition("-")
        if stem.startswith(("libav", "libsw")):
            (target / f"{stem}.so.{rest.split('.so.')[1].split('.')[0]}").symlink_to(library)
    return target


def _install(venv: PeerVenv, requirements: Sequence[str]) -> str | None:
    """None, or the last lines of pip's complaint."""
    return _run([venv.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])


def _run(command: Sequence[str | Path]) -> str | None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return " | ".join(lines[-3:])[-500:] or f"exit {done.returncode}"
