"""Trees of /proc, /sys and cgroups as the kernel makes them, in a folder of the test's own."""

import os
import shutil

TICKS = os.sysconf("SC_CLK_TCK")


def put(path, content):
    """Write a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


class Host:
    """One host. `proc`, `sys` and `cgroup` are roots; figures are set with the methods and can be set anew."""

    def __init__(self, root):
        self.proc, self.sys, self.cgroup = root / "proc", root / "sys", root / "cgroup"
        self.stat()
        self.meminfo(total_kb=8_000_000, available_kb=6_000_000)
        self.net_dev({"lo": (5, 5), "eth0": (0, 0)})
        self.diskstats({"sda": (0, 0, 0, 0)})
        put(self.sys / "class/net/eth0/device/vendor", "0x1af4\n")
        put(self.sys / "class/net/lo/mtu", "65536\n")
        put(self.sys / "block/sda/device/vendor", "x\n")
        put(self.sys / "block/loop0/size", "0\n")
        self.namespace("self", 1)
        self.mounts()

    def stat(self, user=0.0, nice=0.0, system=0.0, idle=0.0, iowait=0.0, irq=0.0, softirq=0.0, steal=0.0, guest=0.0):
        values = (user, nice, system, idle, iowait, irq, softirq, steal, guest, 0)
        row = " ".join(str(round(value * TICKS)) for value in values)
        put(self.proc / "stat", f"cpu  {row}\ncpu0 {row}\nctxt 5\nbtime 1700000000\nprocesses 9\n")

    def meminfo(self, total_kb, available_kb):
        put(self.proc / "meminfo",
            f"MemTotal: {total_kb} kB\nMemFree: 1000 kB\nMemAvailable: {available_kb} kB\nBuffers: 1 kB\n"
            "Cached: 2 kB\nActive: 3 kB\nInactive: 4 kB\nShmem: 5 kB\nSlab: 6 kB\nSReclaimable: 1 kB\n")

    def net_dev(self, interfaces, process=None):
        rows = "".join(f"{name:>6}: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n"
                       for name, (received, sent) in interfaces.items())
        folder = self.proc / (str(process) if process else "")
        put(folder / "net" / "dev", f"Inter-|   Receive    |  Transmit\n face |bytes    |bytes\n{rows}")

    def diskstats(self, disks):
        """Disk -> (reads, bytes read, writes, bytes written)."""
        put(self.proc / "diskstats", "".join(
            f"   8       {number} {name} {reads} 0 {read // 512} 1 {writes} 0 {written // 512} 1 0 1 1 0 0 0 0 0 0\n"
            for number, (name, (reads, read, writes, written)) in enumerate(disks.items())))

    def pressure(self, path, seconds):
        put(path, f"some avg10=0.00 avg60=0.00 avg300=0.00 total={round(seconds * 1e6)}\n"
                  "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")

    def namespace(self, process, number):
        link = self.proc / str(process) / "ns" / "net"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"net:[{number}]")

    def mounts(self, v1=(), v2=False, together=()):
        """Mount v1 hierarchies, one of them with several controllers `together`, and the v2 tree."""
        lines = ["proc /proc proc rw 0 0\n"]
        lines += [f"cgroup {self.cgroup}/{name} cgroup rw,relatime,{name} 0 0\n" for name in v1]
        if together:
            lines.append(f"cgroup {self.cgroup}/{','.join(together)} cgroup rw,relatime,{','.join(together)} 0 0\n")
        if v2:
            lines.append(f"cgroup2 {self.cgroup}/unified cgroup2 rw 0 0\n")
        put(self.proc / "self" / "mounts", "".join(lines))

    def process(self, pid, name="worker", arguments=("worker",), start_s=100.0, cpu_s=0.0, resident_pages=10,
                read=0, written=0, wait_s=(0.0,), namespace=1):
        """A process; `wait_s` has one entry a thread."""
        folder = self.proc / str(pid)
        middle = " ".join(["S"] + ["0"] * 10)
        half = round(cpu_s * TICKS / 2)
        put(folder / "stat", f"{pid} ({name}) {middle} {half} {round(cpu_s * TICKS) - half} 0 0 20 0 1 0 "
                             f"{round(start_s * TICKS)} 1000 {resident_pages} 0 0\n")
        put(folder / "comm", name[:15] + "\n")
        put(folder / "cmdline", "\0".join(arguments) + "\0")
        put(folder / "statm", f"1000 {resident_pages} 1 1 0 1 0\n")
        put(folder / "io", f"rchar: 1\nwchar: 1\nread_bytes: {read}\nwrite_bytes: {written}\n")
        for number, seconds in enumerate(wait_s):
            put(folder / "task" / str(pid + number) / "schedstat", f"5 {round(seconds * 1e9)} 7\n")
        self.namespace(pid, namespace)

    def end(self, pid):
        shutil.rmtree(self.proc / str(pid))
