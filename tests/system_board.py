"""A board with a kernel of its own: qemu's machine `virt` runs Debian's arm64 kernel with busybox
and dropbear in memory, and is reached over SSH on a port of loopback. Packages are unpacked in the
cache, nothing is installed."""

import contextlib
import lzma
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from codegen.peers.sysroot import unpacked

GUEST = ("linux-image-cloud-arm64", "busybox-static", "dropbear-bin")
QEMU = "qemu-system-aarch64"
_BOOT_S = 300.0
# In the order in which they need one another.
_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover", "virtio_net")
_INIT = f"""#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
chmod 1777 /tmp
for m in {" ".join(_MODULES)}; do insmod /modules/$m.ko; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
exec dropbear -F -E -R -s
"""


class SystemBoard:
    """Boots in `folder`. CodegenError where the packages cannot be had."""

    def __init__(self, folder: Path, public_key: str):
        guest = unpacked(GUEST, "arm64")
        kernel = sorted((guest / "boot").glob("vmlinuz-*"))[-1]
        (folder / "initrd").write_bytes(_initrd(guest, public_key))
        self.console = folder / "console"
        self.port = _free_port()
        net = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        command = (*_qemu(), "-M", "virt", "-cpu", "cortex-a57", "-m", "512", "-nographic",
                   "-no-reboot", "-kernel", str(kernel), "-initrd", str(folder / "initrd"),
                   "-append", "console=ttyAMA0 quiet panic=-1", "-netdev", net,
                   "-device", "virtio-net-device,netdev=net")  # fmt: skip
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console,
                                            stderr=subprocess.STDOUT)  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + _BOOT_S
        while not self._greets():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the board did not boot: {self.log()[-300:]}")
            time.sleep(0.2)

    def _greets(self) -> bool:
        """Whether sshd answers; qemu itself takes connections before."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as server:
                return server.recv(4) == b"SSH-"
        except OSError:
            return False

    def log(self) -> str:
        return self.console.read_text(errors="replace")

    def stop(self) -> None:
        """As by a cut cable."""
        self.process.kill()
        self.process.wait()

    def ssh_config(self, alias: str, key: Path) -> str:
        return (f"Host {alias}\n    HostName 127.0.0.1\n    Port {self.port}\n    User root\n"
                f"    IdentityFile {key}\n")  # fmt: skip


def _qemu() -> tuple[str, ...]:
    """This machine's, or the one of its Debian's packages with the libraries of theirs."""
    if found := shutil.which(QEMU):
        return (found,)
    machine = subprocess.run(("dpkg", "--print-architecture"), capture_output=True, text=True)
    root = unpacked(("qemu-system-arm",), machine.stdout.strip())
    linker = sorted(root.glob("lib*/ld-linux-*.so.*"))[0]
    libraries = {str(p.parent) for p in root.glob("**/lib*.so.*")}
    usr = root / "usr"
    return (str(linker), "--library-path", ":".join(sorted(libraries)), str(usr / "bin" / QEMU),
            "-L", str(usr / "share" / "qemu"))  # fmt: skip


def _free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def _initrd(guest: Path, public_key: str) -> bytes:
    """An archive in cpio's format newc: the guest's whole file system."""
    files = {"bin/busybox": (0o755, (guest / "bin" / "busybox").read_bytes()),
             "sbin/dropbear": (0o755, (guest / "usr" / "sbin" / "dropbear").read_bytes()),
             "init": (0o755, _INIT.encode()),
             "etc/passwd": (0o644, b"root:x:0:0:root:/root:/bin/sh\n"),
             "etc/shells": (0o644, b"/bin/sh\n"),
             "root/.ssh/authorized_keys": (0o600, public_key.encode())}  # fmt: skip
    for folder in ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"):
        for path in (guest / folder).glob("*.so*"):
            files[f"lib/aarch64-linux-gnu/{path.name}"] = (0o755, path.read_bytes())
    linker = "lib/ld-linux-aarch64.so.1"
    files[linker] = (0o755, (guest / "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1").read_bytes())
    files |= {f"modules/{name}.ko": (0o644, data) for name, data in _modules(guest)}
    folders = {str(p) for name in files for p in Path(name).parents if str(p) != "."}
    folders |= {"proc", "sys", "dev", "tmp", "etc/dropbear"}
    entries = [(f, 0o40755, b"") for f in sorted(folders)]
    entries += [(n, 0o100000 | mode, data) for n, (mode, data) in files.items()]
    entries += [("bin/sh", 0o120777, b"busybox"), ("TRAILER!!!", 0, b"")]
    return b"".join(_entry(i, *e) for i, e in enumerate(entries, 1))


def _modules(guest: Path) -> Iterator[tuple[str, bytes]]:
    for name in _MODULES:
        path = sorted((guest / "lib" / "modules").glob(f"*/kernel/**/{name}.ko*"))[-1]
        data = path.read_bytes()
        yield name, lzma.decompress(data) if path.suffix == ".xz" else data


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
