"""A PostgreSQL of a test's own, beside those of scripts/dev-servers."""
import contextlib
import os
import shutil
import subprocess

import psycopg2

from harness import PASSFILE, own_directory, superuser_password
from ports import free_port


def tool(name, *arguments, programs=None, timeout=60):
    """Runs a program of PostgreSQL's, as somebody who is not root; programs: its directory (default: that of the shared server)."""
    path = os.path.join(programs or os.environ["TEST_PG_BIN"], name)
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--reset-env"] if os.getuid() == 0 else []
    done = subprocess.run([*prefix, path if os.path.exists(path) else name, *arguments], cwd="/", check=False, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    assert done.returncode == 0, done.stdout


def owner(path):
    status = os.stat(path)
    return status.st_uid, status.st_gid


def copy(source, target):
    """A file with its mode and its owner."""
    shutil.copy2(source, target)
    shutil.chown(target, *owner(source))


class Server:
    """In a directory that belongs to who runs it; a standby of `primary`, which it finds at `port` (of a proxy, say), if that is given."""

    def __init__(self, directory, name, primary=None, port=None, programs=None):
        self.data = os.path.join(directory, name)
        self.programs = programs
        self.port = free_port()
        if primary:
            primary.control("stop", "fast")  # a copy needs no pg_basebackup, which not every version's programs bring
            shutil.copytree(primary.data, self.data, copy_function=copy)
            for folder, _, _ in os.walk(self.data):
                shutil.chown(folder, *owner(primary.data))
            primary.control("start")
            open(os.path.join(self.data, "standby.signal"), "w", encoding="ascii").close()
        else:
            tool("initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={directory}/password", "-E", "UTF8", "--locale=C.UTF-8", "-N",
                 programs=programs)
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "shared_buffers": "32MB", "fsync": "off",
                    "max_wal_senders": 4, "autovacuum": "off"}
        if primary:
            settings["primary_conninfo"] = f"host=127.0.0.1 port={port or primary.port} user=postgres password={superuser_password()}"
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
            file.writelines(f"{setting} = '{value}'\n" for setting, value in settings.items())
        self.running = False
        self.control("start")

    @property
    def conninfo(self):
        return f"host=127.0.0.1 port={self.port} user=postgres passfile={PASSFILE}"

    def control(self, what, mode="immediate"):
        more = ["-l", self.data + ".log"] if what == "start" else ["-m", mode] if what == "stop" else []
        tool("pg_ctl", what, "-D", self.data, "-w", *more, programs=self.programs)
        self.running = what != "stop"

    def value(self, sql, dbname="postgres"):
        with contextlib.closing(psycopg2.connect(f"{self.conninfo} dbname={dbname}")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()


@contextlib.contextmanager
def servers():
    """Makes servers, by a function of their names; ends and removes them."""
    directory = own_directory("postgres")
    os.mkdir(directory)
    for folder in (os.path.dirname(directory), directory):
        os.chmod(folder, 0o755)
    password = os.path.join(directory, "password")
    with open(os.open(password, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(superuser_password() + "\n")
    for path in (directory, password):
        if os.getuid() == 0:
            shutil.chown(path, "postgres", "postgres")
    made = []

    def make(name, primary=None, port=None, programs=None):
        made.append(Server(directory, name, primary, port, programs))
        return made[-1]

    try:
        yield make
    finally:
        for server in made:
            if server.running:
                server.control("stop")
        shutil.rmtree(directory)
