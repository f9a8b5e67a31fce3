"""Tables as osquery has them: some with the data of the host below a root or of a Docker daemon at its socket, and any others with rows
that are given.

A table is a list of columns (name, type, op), osquery's attributes, and what gives its rows.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess


class Table:
    def __init__(self, columns, rows, attributes=0):
        self.columns = columns
        self.rows = rows
        self.attributes = attributes
        self.pause = 0  # seconds that an answer takes
        self.asked = 0

    def routes(self):
        routes = [{"id": "column", "name": name, "type": kind, "op": str(op)} for name, kind, op in self.columns]
        return routes + [{"id": "attributes", "attributes": str(self.attributes)}]


def lines(root, path):
    try:
        with open(os.path.join(root, path), errors="replace") as file:
            return [line.rstrip("\n") for line in file]
    except (FileNotFoundError, NotADirectoryError):
        return []


def files(root, path):
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(os.path.join(root, path)))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def meant(root, path):
    """The lines of a file that are neither empty nor a comment."""
    return [line for line in lines(root, path) if line.strip() and not line.lstrip().startswith("#")]


def users(root):
    fields = [line.split(":") for line in lines(root, "etc/passwd")]
    return [[f[2], f[3], f[0], f[4], f[5], f[6]] for f in fields if len(f) == 7]


def groups(root):
    fields = [line.split(":") for line in lines(root, "etc/group")]
    return [[f[2], f[0]] for f in fields if len(f) == 4]


def mounts(_):
    fields = [line.split() for line in lines("/", "proc/self/mounts")]
    return [[f[0], f[1], f[2], f[3]] for f in fields]


def interface_addresses(_):
    # A name may be gone between being listed and being asked about.
    listed = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    return [
        [link["ifname"], address["local"], str(address["prefixlen"]), address.get("broadcast", "")]
        for link in listed
        for address in link.get("addr_info", [])
    ]


def routes(_):
    fields = [line.split() for line in lines("/", "proc/net/route")[1:]]
    return [[f[1], f[7], f[2], f[0], f[6]] for f in fields]


def etc_hosts(root):
    fields = [line.split(maxsplit=1) for line in meant(root, "etc/hosts")]
    return [[f[0], f[1] if len(f) > 1 else ""] for f in fields]


def crontab(root):
    paths = ["etc/crontab"] + files(root, "etc/cron.d")
    return [[" ".join(line.split()[:5]), " ".join(line.split()[5:]), path] for path in paths for line in meant(root, path)]


def kernel_modules(_):
    fields = [line.split() for line in lines("/", "proc/modules")]
    return [[f[0], f[1], f[3].rstrip(","), f[4], f[5]] for f in fields]


def deb_packages(root):
    packages, package = [], {}
    for line in lines(root, "var/lib/dpkg/status") + [""]:
        if not line:
            if "installed" in package.get("Status", ""):
                packages.append([package.get("Package", ""), package.get("Version", ""), package.get("Architecture", "")])
            package = {}
        elif ":" in line and not line[0].isspace():
            name, value = line.split(":", 1)
            package[name] = value.strip()
    return packages


def authorized_keys(root):
    return [
        [user[0], line.split()[0], line.split()[1], home + "/.ssh/authorized_keys"]
        for user in users(root)
        for home in [user[4]]
        for line in meant(root, home.lstrip("/") + "/.ssh/authorized_keys")
    ]


def sudoers(root):
    paths = ["etc/sudoers"] + files(root, "etc/sudoers.d")
    return [["/" + path, line.split()[0], " ".join(line.split()[1:])] for path in paths for line in meant(root, path)]


def dns_resolvers(root):
    named = [line.split() for line in meant(root, "etc/resolv.conf")]
    return [[str(n), f[0], f[1]] for n, f in enumerate(named) if len(f) > 1]


def apt_sources(root):
    paths = ["etc/apt/sources.list"] + files(root, "etc/apt/sources.list.d")
    return [[line, "/" + path] for path in paths for line in meant(root, path)]


def systemd_units(root):
    return [[os.path.basename(path), path] for path in files(root, "etc/systemd/system")]


class Daemon(http.client.HTTPConnection):
    """Docker's API at a UNIX socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def docker(path, what):
    with contextlib.closing(Daemon(path)) as daemon:
        daemon.request("GET", what)
        return json.load(daemon.getresponse())


def docker_containers(path):
    columns = ("Image", "ImageID", "Command", "Created", "State", "Status")
    return [[c["Id"], c["Names"][0]] + [str(c[column]) for column in columns] for c in docker(path, "/containers/json?all=1")]


def docker_container_networks(path):
    return [
        [container["Id"], name, network["NetworkID"], network["IPAddress"]]
        for container in docker(path, "/containers/json?all=1")
        for name, network in container["NetworkSettings"]["Networks"].items()
    ]


def docker_images(path):
    return [[i["Id"], str(i["Created"]), str(i["Size"]), ",".join(sorted(i["RepoTags"] or []))] for i in docker(path, "/images/json")]


def docker_volumes(path):
    return [[v["Name"], v["Driver"], v["Mountpoint"]] for v in docker(path, "/volumes")["Volumes"] or []]


def text(*names):
    return [(name, "TEXT", 8) for name in names]


# What osquery calls INDEX is 1; 8 is OPTIMIZED, USER_BASED 8 among the attributes.
REAL = {
    "users": ([("uid", "BIGINT", 1)] + [("gid", "BIGINT", 8)] + text("username", "description", "directory", "shell"), users),
    "groups": ([("gid", "BIGINT", 1)] + text("groupname"), groups),
    "mounts": (text("device", "path", "type", "flags"), mounts),
    "interface_addresses": (text("interface", "address", "mask", "broadcast"), interface_addresses),
    "routes": (text("destination", "netmask", "gateway", "interface") + [("metric", "INTEGER", 8)], routes),
    "etc_hosts": (text("address", "hostnames"), etc_hosts),
    "crontab": (text("schedule", "command", "path"), crontab),
    "kernel_modules": (text("name", "size", "used_by", "status", "address"), kernel_modules),
    "deb_packages": (text("name", "version", "arch"), deb_packages),
    "authorized_keys": ([("uid", "BIGINT", 1)] + text("algorithm", "key", "key_file"), authorized_keys, 8),
    "sudoers": (text("source", "header", "rule_details"), sudoers),
    "dns_resolvers": ([("id", "INTEGER", 8)] + text("type", "address"), dns_resolvers),
    "apt_sources": (text("name", "source"), apt_sources),
    "systemd_units": (text("id", "path"), systemd_units),
    "docker_containers": (
        [("id", "TEXT", 1)] + text("name", "image", "image_id", "command") + [("created", "BIGINT", 8)] + text("state", "status"),
        docker_containers,
    ),
    "docker_container_networks": ([("id", "TEXT", 1)] + text("name", "network_id", "ip_address"), docker_container_networks),
    "docker_images": ([("id", "TEXT", 1), ("created", "BIGINT", 8), ("size_bytes", "BIGINT", 8)] + text("tags"), docker_images),
    "docker_volumes": ([("name", "TEXT", 1)] + text("driver", "mount_point"), docker_volumes),
}


def real(name, root):
    columns, rows, *attributes = REAL[name]
    return Table(columns, lambda: rows(root), *attributes)
